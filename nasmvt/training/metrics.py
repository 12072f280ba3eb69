"""What a training writes down: losses and figures by step, one JSON object a line in metrics.jsonl."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nasmvt.files import write_text


class MetricsLog:
    """The metrics.jsonl of a training."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "metrics.jsonl"

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add a line."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def cut(self, step: int) -> None:
        """Drop what was written after a step, and a line that a kill cut short."""
        lines = self._lines()
        kept = [line for line in lines if _step_of(line) <= step]
        if kept != lines:
            write_text(self._path, "".join(line + "\n" for line in kept))

    def evaluated(self, step: int) -> bool:
        """Return whether the figures of a step are there."""
        return any(_step_of(line) == step and "metrics" in json.loads(line) for line in self._lines())

    def _lines(self) -> list[str]:
        if not self._path.is_file():
            return []
        return self._path.read_text(encoding="utf-8", errors="replace").splitlines()


def _step_of(line: str) -> float:
    """Return the step of a line; a line cut short counts as later than all."""
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError, ValueError):
        return math.inf
