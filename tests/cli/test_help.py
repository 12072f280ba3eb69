"""Help: at once, with defaults and an example that can be copied."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from nasmvt.cli.main import app

COMMANDS = [
    "train-supernet",
    "search",
    "retrain",
    "export",
    "evaluate",
    "predict",
    "compare",
    "profile",
    "benchmark",
    "import-reference",
    "draft-space",
    "data",
    "front",
    "report",
    "runs",
]


def help_of(*words: str, width: int = 80) -> str:
    result = CliRunner(env={"COLUMNS": str(width)}).invoke(app, [*words, "--help"])
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("width", [60, 120])
def test_the_example_stands_on_a_line_of_its_own(command, width):
    lines = help_of(command, width=width).splitlines()
    example = lines[lines.index("  Example:") + 1]
    assert example.startswith(f"    nasmvt {command} ")
    assert lines[lines.index("  Example:") + 2] == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_its_default(command):
    text = " ".join(help_of(command, width=200).split())
    for name, words in {"--device": "[default: auto]", "RUN <path>": "[default: (the newest under runs/)]"}.items():
        if name in text:
            assert words in text.partition(name)[2]


def test_every_command_is_listed_with_a_whole_sentence():
    text = help_of()
    assert all(f"  {command} " in text for command in COMMANDS)
    assert "..." not in text.partition("Commands:")[2]


def test_help_does_not_load_the_libraries():
    program = """
import json, sys
from typer.testing import CliRunner
from nasmvt.cli.main import app
codes = [CliRunner().invoke(app, words).exit_code for words in json.loads(sys.argv[1])]
print(json.dumps([codes, [name for name in ("torch", "numpy", "pandas", "ray") if name in sys.modules]]))
"""
    words = [["--help"], *([command, "--help"] for command in COMMANDS)]
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(words)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [[0] * len(words), []]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["serch"], "Did you mean 'search'?"),
        (["search", "--budgt", "3M"], "--budget"),
        (["search", "a", "b"], "unexpected extra argument"),
        (["train-supernet", "--seed", "x"], "--seed"),
        (["predict", "--count", "0"], "--count"),
    ],
)
def test_a_mistyped_command_line_is_refused(words, hint):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert hint in result.stderr.splitlines()[-1]
