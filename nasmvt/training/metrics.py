"""What a training records: losses and figures by step, one JSON object a line."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nasmvt.files import write_text


class MetricsLog:
    """The record of a training.

    Args:
        path: the file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[dict[str, Any]]:
        """Return the entries in order; truncated or damaged lines are skipped."""
        entries = []
        for line in self._lines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and isinstance(entry.get("step"), int):
                entries.append(entry)
        return entries

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add a line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def cut(self, step: int) -> None:
        """Drop what was written after a step, and a line truncated by a kill."""
        lines = self._lines()
        kept = [line for line in lines if _step_of(line) <= step]
        if kept != lines:
            write_text(self.path, "".join(line + "\n" for line in kept))

    def evaluated(self, step: int) -> bool:
        """Return whether the figures of a step are recorded."""
        return any(_step_of(line) == step and "metrics" in json.loads(line) for line in self._lines())

    def _lines(self) -> list[str]:
        if not self.path.is_file():
            return []
        return self.path.read_text(encoding="utf-8", errors="replace").splitlines()


def _step_of(line: str) -> float:
    """Return the step of a line; a truncated line counts as later than all."""
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError, ValueError):
        return math.inf
