"""The command as a user types it, and a trained run to try it on."""

import copy
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from nasmvt.cli.main import app
from tests.conftest import tiny_experiment


class Command:
    """Runs `nasmvt` in this process, as the shell would."""

    def __call__(self, *words: object) -> str:
        """Run a command that must succeed; return what it prints."""
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result.stdout

    def refused(self, *words: object) -> str:
        """Run a command that must be refused with one sentence; return the sentence."""
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        return result.stderr.strip()


@pytest.fixture(scope="session")
def nasmvt() -> Command:
    return Command()


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


Change = Callable[[dict[str, Any]], object]


def write_experiment(change: Change | None = None, path: Path = Path("tiny.yaml"), **changes: Any) -> Path:
    """Write the tiny experiment, changed in place by `change`."""
    values = copy.deepcopy(tiny_experiment(**changes))
    if change is not None:
        change(values)
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory, nasmvt) -> Path:
    """A folder with the run directory `run`, gone through every step. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("finished")
    write_experiment(path=folder / "tiny.yaml")
    run = folder / "run"
    nasmvt("train-supernet", folder / "tiny.yaml", "--out", run)
    nasmvt("search", run, "--budget", "150K")
    nasmvt("retrain", run)
    nasmvt("export", run)
    return run


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy of the finished run in a place of its own, with a space in its path."""
    return Path(shutil.copytree(finished, tmp_path / "my runs" / "first"))


def start(*words: object) -> subprocess.Popen[str]:
    """Start `nasmvt` in a process of its own that hears Ctrl-C, even if the tests run in the background."""
    command = [sys.executable, "-m", "nasmvt.cli.main", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
