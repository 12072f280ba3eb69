"""The units of work that are done: each is computed once, and kept as a line of a file."""

import fcntl
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np

from nasmvt.errors import UserError


class Store:
    """Results by key, in `units.jsonl` of a folder, which several processes may use at once.

    Args:
        folder: where the file is; made if it is missing.
        identity: what the results depend on beside their keys, as plain values.

    Raises:
        UserError: if the folder holds the results of other settings.
    """

    def __init__(self, folder: Path, identity: Any) -> None:
        self.path = folder / "units.jsonl"
        self._units: dict[str, dict[str, Any]] = {}
        self._counted = np.zeros(2)  # seconds, by the clock and of the processor, that belong to no unit still at work
        folder.mkdir(parents=True, exist_ok=True)
        self._locks = os.open(folder / "locks", os.O_RDWR | os.O_CREAT)
        finalize(self, os.close, self._locks)
        plain = json.loads(json.dumps(identity))
        with self._locked("units"):
            if not self.path.exists():
                self._append({"identity": plain})
            if self._read() != plain:
                raise UserError(f"{self.path} was made with other settings: give another --out, or delete the folder")

    def get(self, key: str, compute: Callable[[], Any]) -> Any:
        """Return the result of a unit, computed unless it is known; plain values, as JSON gives them back.

        The time of units that are computed on the way, such as the training of a supernet, is theirs.
        """
        if key not in self._units:
            asked = _clocks()
            with self._locked(key):  # another process may be computing it
                self._counted += _clocks() - asked
                with self._locked("units"):
                    self._read()
                if key not in self._units:
                    self._compute(key, compute)
        return self._units[key]["value"]

    def _compute(self, key: str, compute: Callable[[], Any]) -> None:
        began = _clocks() - self._counted
        value = json.loads(json.dumps(compute()))
        own = _clocks() - self._counted - began
        self._counted += own
        spent = dict(zip(("seconds", "cpu"), own.round(2).tolist(), strict=True))
        self._units[key] = {"key": key, "value": value, **spent}
        with self._locked("units"):
            self._read()
            self._append(self._units[key])
        print(f"{key}: {spent['seconds']:.0f} s", flush=True)

    def spent(self) -> dict[str, dict[str, float]]:
        """Return the number of units and the seconds that they took, by the first word of their keys."""
        with self._locked("units"):
            self._read()
        found: dict[str, dict[str, float]] = {}
        for key, unit in self._units.items():
            kind = found.setdefault(key.partition("/")[0], {"units": 0, "seconds": 0.0, "cpu": 0.0})
            kind["units"] += 1
            kind["seconds"] += unit["seconds"]
            kind["cpu"] += unit["cpu"]
        return found

    def _read(self) -> Any:
        """Take in the units of the file, and return its identity; a line that was not written to its end is dropped."""
        lines = self.path.read_text().splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):  # its process was killed
            self.path.write_text("".join(lines[:-1]))
        first, *entries = [json.loads(line) for line in lines if line.endswith("\n")] or [{}]
        self._units |= {entry["key"]: entry for entry in entries}
        return first.get("identity")

    def _append(self, entry: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Keep other processes from a unit, or from the file: each name is a byte of `locks`. Who ends lets go."""
        place = zlib.crc32(name.encode())
        fcntl.lockf(self._locks, fcntl.LOCK_EX, 1, place)
        try:
            yield
        finally:
            fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, place)


def _clocks() -> np.ndarray:
    """Return the seconds by the clock and of the processor."""
    return np.array([time.monotonic(), time.process_time()])
