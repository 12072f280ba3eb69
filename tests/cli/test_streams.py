"""Whatever the console is: any encoding, a pipe that nobody reads, a full disk, no stream at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import nasmvt

COMMAND = [sys.executable, "-m", "nasmvt.cli.main"]


def run(*words: str, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, **options.pop("env", {})}
    return subprocess.run([*COMMAND, *words], env=environment, timeout=120, **{"capture_output": True, **options})


def test_version():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"nasmvt {nasmvt.__version__}\n".encode())


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_console_of_any_encoding(encoding):
    Path("r\u00e9sum\u00e9_\u4e2d.yaml").write_text("a: [")
    done = run("profile", "r\u00e9sum\u00e9_\u4e2d.yaml", env={"PYTHONIOENCODING": encoding})
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: r")
    assert done.stderr.count(b"\n") == 1


def test_tables_and_names_are_printed_in_ascii():
    text = (Path(nasmvt.__file__).parents[1] / "search_spaces" / "vit_mvt_nano.yaml").read_text()
    Path("espace_\u00e9.yaml").write_text(text)
    done = run("profile", "espace_\u00e9.yaml", env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"espace_\\xe9" in done.stdout
    assert done.stdout.isascii()


def test_a_reader_that_goes_away_stops_nothing():
    with subprocess.Popen([*COMMAND, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as done:
        done.stdout.close()
        assert done.stderr.read() == b""
    assert done.returncode == 0


def test_a_full_disk_is_said():
    with Path("/dev/full").open("w") as full:
        done = run("--help", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: what was printed could not be written (No space left on device)")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(("number", "words", "code"), [(1, ["--help"], 0), (2, ["profile", "gone"], 2)])
def test_a_closed_stream_is_no_error(number, words, code):
    done = run(*words, preexec_fn=lambda: os.close(number))
    assert done.returncode == code
    assert b"Traceback" not in done.stderr + done.stdout


def test_the_backend_of_a_notebook_is_not_looked_for():
    program = "import nasmvt.cli.main, matplotlib; print(matplotlib.get_backend())"
    environment = {**os.environ, "MPLBACKEND": "module://a_backend_of_nowhere"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "agg\n"
