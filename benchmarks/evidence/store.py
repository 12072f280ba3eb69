"""The units of work that are done: each is computed once, and kept as a line of a file."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nasmvt.errors import UserError


class Store:
    """Results by key, in `units.jsonl` of a folder.

    Args:
        folder: where the file is; made if it is missing.
        identity: what the results depend on beside their keys, as plain values.

    Raises:
        UserError: if the folder holds the results of other settings.
    """

    def __init__(self, folder: Path, identity: Any) -> None:
        self.path = folder / "units.jsonl"
        self._units: dict[str, dict[str, Any]] = {}
        self._counted = np.zeros(2)  # seconds, by the clock and of the processor, of the units computed so far
        folder.mkdir(parents=True, exist_ok=True)
        plain = json.loads(json.dumps(identity))
        if not self.path.exists():
            self._append({"identity": plain})
            return
        lines = self.path.read_text().splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):  # killed while it was written
            self.path.write_text("".join(lines[:-1]))
        entries = [json.loads(line) for line in lines if line.endswith("\n")]
        if not entries or entries[0].get("identity") != plain:
            raise UserError(f"{self.path} was made with other settings: give another --out, or delete the folder")
        self._units = {entry["key"]: entry for entry in entries[1:]}

    def get(self, key: str, compute: Callable[[], Any]) -> Any:
        """Return the result of a unit, computed unless it is known; plain values, as JSON gives them back.

        The time of units that are computed on the way, such as the training of a supernet, is theirs.
        """
        if key not in self._units:
            began = _clocks() - self._counted
            value = json.loads(json.dumps(compute()))
            own = _clocks() - self._counted - began
            self._counted = self._counted + own
            spent = dict(zip(("seconds", "cpu"), own.round(2).tolist(), strict=True))
            self._units[key] = {"key": key, "value": value, **spent}
            self._append(self._units[key])
            print(f"{key}: {spent['seconds']:.0f} s", flush=True)
        return self._units[key]["value"]

    def spent(self) -> dict[str, dict[str, float]]:
        """Return the number of units and the seconds that they took, by the first word of their keys."""
        found: dict[str, dict[str, float]] = {}
        for key, unit in self._units.items():
            kind = found.setdefault(key.partition("/")[0], {"units": 0, "seconds": 0.0, "cpu": 0.0})
            kind["units"] += 1
            kind["seconds"] += unit["seconds"]
            kind["cpu"] += unit["cpu"]
        return found

    def _append(self, entry: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def _clocks() -> np.ndarray:
    """Return the seconds by the clock and of the processor."""
    return np.array([time.monotonic(), time.process_time()])
