"""The journal of a search, so that nothing is evaluated twice."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nasmvt.cost import ParameterCount
from nasmvt.errors import UserError
from nasmvt.files import write_text
from nasmvt.search.candidate import Candidate
from nasmvt.search.pool import Evaluation
from nasmvt.space import Arch, SearchSpace

FORMAT = 4
"""4: BatchNorm statistics are estimated on images in random order, which gives other metrics."""

_KEYS: dict[Any, set[str]] = {
    "evaluation": {"id", "task", "metrics"},
    "candidate": {"id", "arch", "parameters", "macs", "metrics", "score", "generation"},
    "generation": {"generation", "hypervolume"},
    "timing": {"id", "task", "microseconds"},
    "rung": {"id", "task", "rung", "blocks"},
    "dropped": {"id", "arch", "generation", "partial"},
}
"""The keys that are read from each kind of line."""

_EVALUATED = ("space", "choices", "weights", "sharing_rule", "data")
_EVALUATED_BY = ("images", "recalibration_images", "precision")
"""What metrics depend on: keys of a header, and of its settings."""


class Journal:
    """A file of JSON lines: a header, then a line per evaluation, per completed candidate, per generation and per
    measured latency; of a race also one per task and rung, and one per arch that was dropped.

    Each line is written and flushed at once. A search that starts again over an existing journal finds the
    evaluations in it; with the same seed it visits the same archs and so continues where it ended. A line
    truncated by a crash is dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._metrics: dict[tuple[str, str], dict[str, float]] = {}
        self._completed: set[str] = set()
        self._generations: set[int] = set()
        self._taken: dict[str, dict[str, Any]] = {}
        self._timed: dict[tuple[str, str], int] = {}
        self._rungs: dict[tuple[str, str, int], dict[str, float]] = {}
        self._dropped: set[str] = set()

    def begin(self, header: Mapping[str, Any], init: Path | None = None) -> None:
        """Read an existing journal, or start one.

        Args:
            header: what evaluations and archs depend on, as plain values: space, seed, budget, weights ...
            init: the journal of another search, whose evaluations a new one starts with.

        Raises:
            UserError: if the journal belongs to a search with another header, or is damaged, or the other search
                evaluated differently.
        """
        named = {} if init is None else {"init": str(init)}
        wanted = json.loads(json.dumps({"format": FORMAT, **header, **named}))
        entries = self._read()
        if not entries:
            taken = [] if init is None else Journal(init).evaluations(wanted)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lines = [wanted, *taken]
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in lines))
            entries = lines
        self._compare(entries[0], wanted)
        for entry in entries[1:]:
            if entry["kind"] == "evaluation":
                self._metrics[entry["id"], entry["task"]] = entry["metrics"]
                if entry.get("taken"):
                    self._taken[entry["id"]] = entry["arch"]
            elif entry["kind"] == "candidate":
                self._completed.add(entry["id"])
            elif entry["kind"] == "generation":
                self._generations.add(entry["generation"])
            elif entry["kind"] == "rung":
                self._rungs[entry["id"], entry["task"], entry["rung"]] = entry["blocks"]
            elif entry["kind"] == "dropped":
                self._dropped.add(entry["id"])
            else:
                self._timed[entry["id"], entry["task"]] = entry["microseconds"]

    def evaluations(self, header: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the lines of all evaluations, for a search that begins with them.

        Args:
            header: of that search.

        Raises:
            UserError: if there are none, or what is evaluated there has other weights, data or settings.
        """
        found, *entries = self._read(repair=False) or [{}]
        lines = [{**entry, "taken": True} for entry in entries if entry["kind"] == "evaluation"]
        if not lines:
            raise UserError(f"{self.path} holds no evaluation: give --init the folder of a search that has begun")
        for key in ("format", *_EVALUATED):
            if found.get(key) != header.get(key):
                raise UserError(
                    f"a search begins with one of the same {key}, but that of {self.path} differs: leave out --init"
                )
        for key in _EVALUATED_BY:
            there, here = (one["config"].get(key) for one in (found, header))
            if there != here:
                raise UserError(
                    f"a search begins with one of the same '{key}', which is {there!r} in {self.path} and {here!r} "
                    "here: change it, or leave out --init"
                )
        return lines

    def taken(self, space: SearchSpace) -> dict[Arch, dict[str, dict[str, float]]]:
        """Return the metrics by task of the archs that this search began with."""
        found: dict[Arch, dict[str, dict[str, float]]] = {}
        for values in self._taken.values():
            arch = space.arch(values, str(self.path))
            found[arch] = {task: metrics for (name, task), metrics in self._metrics.items() if name == arch.id}
        return found

    def read(self, space: SearchSpace) -> tuple[dict[str, Any], list[Candidate]]:
        """Return the header and the completed candidates, in the order of completion.

        Raises:
            UserError: if there is no candidate, or the file is damaged or of another space.
        """
        header, *entries = self._read(repair=False) or [{}]
        if header.get("format") != FORMAT:
            raise UserError(f"{self.path} holds no search of this version of nasmvt: run 'nasmvt search' first")
        timed: dict[str, dict[str, int]] = {}
        for entry in entries:
            if entry["kind"] == "timing":
                timed.setdefault(entry["id"], {})[entry["task"]] = entry["microseconds"]
        candidates = [
            self._candidate(space, entry, timed.get(entry["id"], {}))
            for entry in entries
            if entry["kind"] == "candidate"
        ]
        if not candidates:
            raise UserError(f"{self.path} holds no candidate yet: let 'nasmvt search' go on")
        return header, candidates

    def seconds(self) -> dict[str, list[float]]:
        """Return what each evaluation took, by task.

        Raises:
            UserError: if the file is damaged.
        """
        found: dict[str, list[float]] = {}
        for entry in self._read(repair=False)[1:]:
            if entry["kind"] == "evaluation":
                found.setdefault(entry["task"], []).append(float(entry.get("seconds", 0.0)))
        return found

    def notes(self, name: str) -> dict[int, float]:
        """Return what the searcher noted under a name, by generation."""
        entries = self._read(repair=False)[1:]
        return {e["generation"]: e[name] for e in entries if e["kind"] == "generation" and name in e}

    def _candidate(self, space: SearchSpace, entry: Mapping[str, Any], timed: Mapping[str, int]) -> Candidate:
        parts = {name: entry["parameters"][name] for name in ("shared", "specific", "heads")}
        rest = {name: entry[name] for name in ("macs", "metrics", "score", "generation")}
        rest |= {"latency": entry.get("latency", {}), "timed": timed}
        return Candidate(arch=space.arch(entry["arch"], str(self.path)), parameters=ParameterCount(**parts), **rest)

    def find(self, arch: Arch, task: str, rung: int | None = None) -> dict[str, float] | None:
        """Return the metrics of an arch on a task, or what it reached in a rung, if they are known."""
        return self._metrics.get((arch.id, task)) if rung is None else self._rungs.get((arch.id, task, rung))

    def add_evaluation(self, evaluation: Evaluation) -> None:
        """Write an evaluation."""
        arch, task, metrics = evaluation.arch, evaluation.task, evaluation.metrics
        entry: dict[str, Any]
        if evaluation.rung is None:
            self._metrics[arch.id, task] = metrics
            entry = {"kind": "evaluation", "id": arch.id, "task": task, "metrics": metrics}
        else:
            self._rungs[arch.id, task, evaluation.rung] = metrics
            entry = {"kind": "rung", "id": arch.id, "task": task, "rung": evaluation.rung, "blocks": metrics}
        again = {"starts": evaluation.starts} if evaluation.starts > 1 else {}
        self._append({**entry, "seconds": round(evaluation.seconds, 3), **again, "arch": arch.to_dict()})

    def add_candidate(self, candidate: Candidate) -> None:
        """Write a completed candidate, once."""
        if candidate.arch.id not in self._completed:
            self._completed.add(candidate.arch.id)
            self._append({"kind": "candidate", "id": candidate.arch.id, **candidate.to_dict()})

    def add_dropped(self, arch: Arch, generation: int, blocks: int, partial: Mapping[str, Mapping[str, float]]) -> None:
        """Write, once, that an arch was dropped from a race after some blocks, with its partial figures."""
        if arch.id not in self._dropped:
            self._dropped.add(arch.id)
            entry = {"kind": "dropped", "id": arch.id, "arch": arch.to_dict(), "generation": generation}
            self._append({**entry, "blocks": blocks, "partial": {task: dict(found) for task, found in partial.items()}})

    def add_generation(self, generation: int, hypervolume: float, notes: Mapping[str, float] | None = None) -> None:
        """Write, once, what the search had reached with a generation, and what the searcher notes of it."""
        if generation not in self._generations:
            self._generations.add(generation)
            reached = {"generation": generation, "hypervolume": hypervolume}
            self._append({"kind": "generation", **reached, **(notes or {})})

    def timed(self, arch: Arch, task: str) -> int | None:
        """Return the microseconds of a call of an arch's network if they were measured."""
        return self._timed.get((arch.id, task))

    def add_timing(self, arch: Arch, task: str, microseconds: int) -> None:
        """Write a measured latency."""
        self._timed[arch.id, task] = microseconds
        self._append({"kind": "timing", "id": arch.id, "task": task, "microseconds": microseconds})

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def _read(self, *, repair: bool = True) -> list[dict[str, Any]]:
        """Return the entries without an incomplete last line, which `repair` also cuts off the file."""
        if not self.path.is_file():
            return []
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if repair and whole < len(content):
            os.truncate(self.path, whole)
        entries = []
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            entry = _parsed(line)
            if not isinstance(entry, dict) or not (number == 1 or _KEYS.get(entry.get("kind"), {""}) <= entry.keys()):
                raise UserError(f"line {number} of {self.path} is damaged: delete the file, or give another --out")
            entries.append(entry)
        return entries

    def _compare(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        for key in sorted(found.keys() | wanted.keys()):
            there, here = found.get(key), wanted.get(key)
            if isinstance(there, dict) and isinstance(here, dict):
                differing = [
                    inner for inner in sorted(there.keys() | here.keys()) if there.get(inner) != here.get(inner)
                ]
                if differing:
                    key, there, here = (
                        f"{key}.{differing[0]}",
                        there.get(differing[0]),
                        here.get(differing[0]),
                    )
            if there != here:
                raise UserError(
                    f"{self.path} belongs to another search ({key} is {there!r} there and {here!r} here): "
                    "give another --out, or delete it"
                )


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
