"""File names inside a run directory are known in one place."""

import ast
from pathlib import Path

import nasmvt
from nasmvt.pipeline.layout import SearchFiles, TrainingFiles

PACKAGE = Path(nasmvt.__file__).parent
DOOR = {PACKAGE / "pipeline" / "run.py", PACKAGE / "pipeline" / "layout.py"}


def test_only_the_run_knows_what_its_files_are_called():
    training, search = TrainingFiles(Path()), SearchFiles(Path())
    paths = (training.metrics, training.checkpoint, training.arch, training.curves)
    names = {str(path) for path in (*paths, search.journal, search.candidates, search.best)}
    assert names >= {"metrics.jsonl", "candidates.csv", "best.yaml"}
    for path in set(PACKAGE.rglob("*.py")) - DOOR:
        strings = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not strings & names, path
