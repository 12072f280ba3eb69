"""The latencies of a space's archs on one device: measured on some, tables for all, in a file."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from nasmvt.config import Config, parse, read_json
from nasmvt.cost.latency_model import Parts, agreement, fit
from nasmvt.cost.tables import Slots, Tables
from nasmvt.errors import UserError, listed, nearest
from nasmvt.files import write_json
from nasmvt.precision import Precision
from nasmvt.space import Arch, SearchSpace
from nasmvt.tasks.task import Task

FORMAT = 1


class Setting(Config):
    """What a latency depends on beside the network."""

    runtime: str = "torch"
    """`torch`: the plain network in PyTorch; `onnx`: its exported file in ONNX Runtime, on the CPU."""
    device: str = "cpu"
    """Where PyTorch computes: `cpu`, `cuda` ..."""
    processor: str
    """The name of the processor, or of the GPU."""
    threads: int = Field(default=1, ge=1)
    """Threads of an operator."""
    batch: int = Field(default=1, ge=1)
    """Images of a call."""
    precision: Precision = "fp32"
    """In which numbers PyTorch computes."""

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.runtime} on {self.processor} ({self.device}), {threads}, batch {self.batch}, {self.precision}"


class Timed(Config):
    """An arch that was timed."""

    arch: dict[str, Any]
    ratio: float = Field(gt=0)
    """Its time over that of the reference, both taken in turns."""


class Entry(Config):
    """A table: what the options of some slots take."""

    slots: tuple[tuple[str, int | None], ...]
    """Choices, with their block."""
    microseconds: Any
    """A number, or lists of them, one level per slot."""


class TaskLatency(Config):
    """The latencies of one task."""

    identity: dict[str, Any]
    """What else the network depends on (see `identity`)."""
    reference: dict[str, Any]
    """The arch that all others were timed in turns with."""
    milliseconds: float = Field(gt=0)
    """The reference's own time, undisturbed: the first decile of its passes."""
    timed: tuple[Timed, ...]
    held_out: tuple[Timed, ...] = ()
    error: float | None = None
    """Median of the relative errors on those held out, of tables that were fitted without them."""
    rank_correlation: float | None = None
    """Spearman's, on the same."""
    tables: tuple[Entry, ...]
    """Fitted on all that were timed."""

    @classmethod
    def fitted(
        cls,
        space: SearchSpace,
        task: Task,
        cut: Tables,
        reference: Arch,
        milliseconds: float,
        timed: Mapping[Arch, float],
        held_out: Mapping[Arch, float],
    ) -> "TaskLatency":
        """Fit the tables.

        Args:
            space: the space.
            task: the task.
            cut: its multiply-accumulates.
            reference: the arch that the others were timed with.
            milliseconds: what the reference takes.
            timed: the ratio of each arch's time to the reference's.
            held_out: the same of archs that judge the tables first.
        """
        parts = Parts(space, cut)
        error = correlation = None
        if held_out:
            tables = fit(parts, cut, list(timed), [ratio * milliseconds for ratio in timed.values()])
            predicted = [int(tables.of(arch)[0]) / 1000 for arch in held_out]
            error, correlation = agreement(predicted, [ratio * milliseconds for ratio in held_out.values()])
        every = {**timed, **held_out}
        tables = fit(parts, cut, list(every), [ratio * milliseconds for ratio in every.values()])
        return cls(
            identity=identity(task),
            reference=reference.to_dict(),
            milliseconds=milliseconds,
            timed=_timed(timed),
            held_out=_timed(held_out),
            error=error,
            rank_correlation=correlation,
            tables=tuple(
                Entry(slots=tuple(space.slots[slot] for slot in slots), microseconds=values[..., 0].tolist())
                for slots, values in tables.entries.items()
            ),
        )

    def entries(self, space: SearchSpace) -> dict[Slots, np.ndarray]:
        """Return the tables as arrays.

        Raises:
            ValueError: if they do not fit the space.
        """
        places = {slot: place for place, slot in enumerate(space.slots)}
        found: dict[Slots, np.ndarray] = {}
        for entry in self.tables:
            slots = tuple(places[slot] for slot in entry.slots if slot in places)
            values = np.array(entry.microseconds, dtype=np.int64)[..., None]
            if values.shape != (*(space.slot_sizes[slot] for slot in slots), 1):
                raise ValueError(f"a table of the slots {entry.slots} has the shape {values.shape[:-1]}")
            found[slots] = values
        return found


class LatencyTable(Config):
    """The latencies of a space's archs in one setting."""

    format: int = FORMAT
    space: dict[str, Any]
    """What the space's networks depend on, with its name (see `plain`)."""
    setting: Setting
    tasks: dict[str, TaskLatency]

    @classmethod
    def read(cls, path: Path) -> "LatencyTable":
        """Read a file.

        Raises:
            UserError: if there is none, or it is no such table.
        """
        values = read_json(path)
        if values.get("format") != FORMAT:
            raise UserError(f"{path} is no latency table of format {FORMAT}: make it with 'nasmvt measure-latency'")
        return parse(cls, values, str(path))

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_json(path, self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that identify the table."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    def tables(self, space: SearchSpace, task: str) -> Tables:
        """Return a task's microseconds, a single column.

        Raises:
            UserError: if the table has no such task, or is damaged.
        """
        if task not in self.tasks:
            raise UserError(
                f"the latency table has no task {task!r}{nearest(task, self.tasks)} (it has {listed(self.tasks)}): "
                "measure that too"
            )
        try:
            return Tables(space, self.tasks[task].entries(space))
        except (TypeError, ValueError) as error:
            raise UserError(f"the latency table is damaged ({error}): measure anew") from None

    def check(self, space: SearchSpace, tasks: Mapping[str, Task], needed: Sequence[str], source: Path) -> None:
        """Refuse a table of other networks.

        Args:
            space: of the networks.
            tasks: all of them.
            needed: those whose latency is asked for.
            source: of the table.

        Raises:
            UserError: naming what differs.
        """
        here = plain(space)
        differing = [key for key in here if key != "name" and here[key] != self.space.get(key)]
        if differing:
            raise UserError(
                f"a latency table holds for one search space, but {source} was measured on {self.space.get('name')!r}, "
                f"whose {differing[0]} differ from those of {space.name!r}: measure this space"
            )
        for name in (name for name in needed if name in tasks):
            self.tables(space, name)
            there, now = self.tasks[name].identity, identity(tasks[name])
            for key in now:
                if there.get(key) != now[key]:
                    raise UserError(
                        f"a latency table holds for one task network, but in {source} the {key} of {name!r} is "
                        f"{there.get(key)!r}, not {now[key]!r}: measure this one"
                    )

    def check_setting(self, source: Path, **wanted: object) -> None:
        """Refuse a table of another setting.

        Args:
            source: of the table.
            wanted: what must be as given; None: may be anything.

        Raises:
            UserError: naming what differs.
        """
        for key, value in wanted.items():
            found = getattr(self.setting, key)
            if value is not None and found != value:
                raise UserError(
                    f"{source} was measured with {key} {found!r}, but {key} {value!r} is asked for: ask for {found!r}, "
                    "or measure another table and give it by --latency"
                )


def plain(space: SearchSpace) -> dict[str, Any]:
    """Return what the networks of a space depend on, as plain values, with its name."""
    return space.model_dump(mode="json", include={"name", "family", "choices", "fixed"})


def identity(task: Task) -> dict[str, Any]:
    """Return what a task's network depends on beside the arch, as plain values."""
    return {
        "kind": task.config.kind,
        "classes": len(task.info.classes),
        "image_size": list(task.nominal_size),
        "head": task.config.head.model_dump(mode="json"),
    }


def _timed(ratios: Mapping[Arch, float]) -> tuple[Timed, ...]:
    return tuple(Timed(arch=arch.to_dict(), ratio=ratio) for arch, ratio in ratios.items())
