"""Costs of the archs of a space, many at once."""

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from nasmvt.cost.latency_table import LatencyTable
from nasmvt.cost.macs import count_macs
from nasmvt.cost.parameters import ParameterCount
from nasmvt.cost.tables import ItemTables, Tables
from nasmvt.errors import UserError
from nasmvt.space import Arch, SearchSpace, Sharing
from nasmvt.space.sharing import layer_of
from nasmvt.tasks.build import SizeReader
from nasmvt.tasks.task import Task

PARAMETERS, GMACS, LATENCY = "parameters", "gmacs", "latency"
"""What costs are called; the last two are those of a task: `gmacs:det`."""


class Costs:
    """Parameters, multiply-accumulates and latencies of archs, from tables that are derived when first needed.

    The first count measures about a hundred archs on `meta`, which takes seconds; from then on counting is a look-up.

    Args:
        space: the search space.
        tasks: the tasks whose networks are counted together.
        sharing: the layers that tasks share; layers an arch does not have are passed over.
        timing: the latencies of the archs, where they are asked for.
    """

    def __init__(
        self, space: SearchSpace, tasks: Mapping[str, Task], sharing: Sharing, timing: LatencyTable | None = None
    ) -> None:
        self.space = space
        self.tasks = dict(tasks)
        self.sharing = sharing
        self.timing = timing
        self._macs: dict[str, Tables] = {}

    def under(self, sharing: Sharing) -> "Costs":
        """Return the costs under another sharing; measurements are reused."""
        other = Costs(self.space, self.tasks, sharing, self.timing)
        other._items, other._macs = self._items, self._macs
        return other

    def parameters(self, arch: Arch) -> ParameterCount:
        """Return the parameters of an arch with their parts."""
        shared, *parts = map(int, self._parts.of(arch))
        count = len(self.tasks)
        return ParameterCount(
            shared=shared,
            specific=dict(zip(self.tasks, parts[:count], strict=True)),
            heads=dict(zip(self.tasks, parts[count:], strict=True)),
        )

    @cached_property
    def totals(self) -> Tables:
        """The tables of total parameters, a single column: what a budget bounds."""
        entries = {slots: values.sum(axis=-1, keepdims=True) for slots, values in self._parts.entries.items()}
        return Tables(self.space, entries)

    def macs(self, task: str) -> Tables:
        """Return the tables of a task's multiply-accumulates per image (see `count_macs`), a single column."""
        if task not in self._macs:
            items = ItemTables(self.space, lambda arch: count_macs(self.space, self.tasks[task], arch))
            self._macs[task] = items.add_up([dict.fromkeys(items.slots, 1)])
        return self._macs[task]

    def latency(self, task: str) -> Tables:
        """Return the tables of the microseconds of a call of a task's network, a single column.

        Raises:
            UserError: if they were not measured.
        """
        if self.timing is None:
            raise UserError(f"the latency of {task!r} is not known: measure it with 'nasmvt measure-latency'")
        return self.timing.tables(self.space, task)

    def named(self, name: str) -> Tables:
        """Return the tables of a cost by its name: `parameters`, `gmacs:TASK`, `latency:TASK`; a single column."""
        kind, _, task = name.partition(":")
        return self.totals if kind == PARAMETERS else {GMACS: self.macs, LATENCY: self.latency}[kind](task)

    @cached_property
    def _parts(self) -> Tables:
        """Columns: shared, each task's own part of the backbone, each task's neck and head."""
        items = self._items
        columns: list[dict[str, int]] = [{} for _ in range(1 + 2 * len(self.tasks))]
        counted: set[str] = set()
        for item in items.slots:
            task, name = item.split("/", 1)
            if task not in self.sharing.tasks(layer_of(name)):
                first = 1 if name.startswith("backbone.") else 1 + len(self.tasks)
                columns[first + list(self.tasks).index(task)][item] = 1
            elif name not in counted:
                counted.add(name)
                columns[0][item] = 1
        return items.add_up(columns)

    @cached_property
    def _items(self) -> ItemTables:
        readers = {name: SizeReader(self.space, task) for name, task in self.tasks.items()}

        def sizes(arch: Arch) -> dict[str, int]:
            return {f"{task}/{name}": size for task, read in readers.items() for name, size in read(arch).items()}

        return ItemTables(self.space, sizes)


def beside(tables: list[Tables]) -> Tables:
    """Return tables whose columns stand side by side."""
    widths = [table.columns for table in tables]
    entries: dict[tuple[int, ...], np.ndarray] = {}
    for table, start in zip(tables, np.cumsum([0, *widths]), strict=False):
        for slots, values in table.entries.items():
            if slots not in entries:
                entries[slots] = np.zeros((*values.shape[:-1], sum(widths)), dtype=np.int64)
            entries[slots][..., start : start + table.columns] = values
    return Tables(tables[0].space, entries)
