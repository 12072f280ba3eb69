"""What sums of tables may be over all options of their slots, one slot eliminated after the other.

What a block's hidden width costs depends on the width of its stage alone, what a stage costs on its width and the one
before. So a slot is eliminated given its *neighbours*, the slots with which it still shares a table: for each of their
options, a *message* says what the slot and those eliminated before that hang on it may cost. This is variable
elimination as in graphical models (Dechter, "Bucket elimination", 1999), with ranges or sets of sums in place of
numbers. A few slots are left, the *root*: given their options the rest falls into independent parts.

Shapes: S slots of the space, V bounds, O options of a slot.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from math import log, prod
from typing import Generic, Protocol, TypeVar

import numpy as np

from nasmvt.cost.tables import Slots
from nasmvt.space import SearchSpace

Given = Mapping[int, int]
"""Option indices by slot."""
M = TypeVar("M")


class Order:
    """The order in which the slots of a space are eliminated, cheap ones first, and what hangs on what.

    Args:
        space: the search space.
        tables: the sets of slots that have a table.
        largest_root: combinations of options of the root; slots are eliminated until it is as small.

    Attributes:
        neighbours: for every slot eliminated, those with which it shared a table then.
        children: for every slot, and for None (the root), the slots whose sums hang on it.
        homes: for every slot, and for None, the tables that are read when it is eliminated.
        root: the slots that are left.
    """

    def __init__(self, space: SearchSpace, tables: Sequence[Slots], largest_root: int) -> None:
        sizes = space.slot_sizes
        links: dict[int, set[int]] = {slot: set() for slot in range(len(sizes))}
        counted = [(slot, count) for slot, count in enumerate(space.count_slots) if count is not None]
        for slots in (*tables, *counted):
            for first, second in combinations(slots, 2):
                links[first].add(second)
                links[second].add(first)
        self.neighbours: dict[int, Slots] = {}
        hanging: dict[int, float] = {}  # logarithm of the ways that hang on some slots
        while links and prod(sizes[slot] for slot in links) > largest_root:
            # whether a block exists is known as long as its count goes later
            early = {count for slot, count in counted if slot in links}
            work = {
                slot: sum(log(sizes[other]) for other in (slot, *links[slot]))
                + sum(ways for child, ways in hanging.items() if slot in self.neighbours[child])
                for slot in links
                if slot not in early
            }
            slot = min(work, key=lambda slot: (round(work[slot], 6), slot))
            below = [child for child in hanging if slot in self.neighbours[child]]
            hanging[slot] = log(sizes[slot]) + sum(hanging.pop(child) for child in below)
            others = links.pop(slot)
            self.neighbours[slot] = tuple(sorted(others))
            for other in others:
                links[other] = (links[other] | others) - {slot, other}
        self.root = tuple(links)
        places: dict[int, int] = {slot: place for place, slot in enumerate(self.neighbours)}

        def home(slots: Slots) -> int | None:
            gone = [slot for slot in slots if slot in places]
            return min(gone, key=lambda slot: places[slot]) if gone else None

        self.children: dict[int | None, list[int]] = {slot: [] for slot in (None, *places)}
        self.homes: dict[int | None, list[Slots]] = {slot: [] for slot in (None, *places)}
        for slot in sorted(places):
            self.children[home(self.neighbours[slot])].append(slot)
        for slots in tables:
            self.homes[home(slots)].append(slots)


class Algebra(Protocol[M]):
    """How what is known of some slots (a *message*) becomes what is known of more."""

    def together(self, messages: Sequence[M]) -> M:
        """Return the message of independent slots together."""

    def either(self, slot: int, costs_OV: np.ndarray, messages: Sequence[M]) -> M:
        """Return the message of a slot: what each option costs itself, and the message that goes with each."""


class Ranges:
    """Messages that are the least and the largest sums, (2, V) column by column."""

    def __init__(self, columns: int) -> None:
        self._columns = columns

    def together(self, messages: Sequence[np.ndarray]) -> np.ndarray:
        """Add up the ends of independent ranges."""
        return sum(messages, np.zeros((2, self._columns), dtype=np.int64))

    def either(self, slot: int, costs_OV: np.ndarray, messages: Sequence[np.ndarray]) -> np.ndarray:
        """Return the range over all options."""
        return joint([cost_V + message for cost_V, message in zip(costs_OV, messages, strict=True)])


def joint(ranges: Sequence[np.ndarray]) -> np.ndarray:
    """Return the range (2, V) that holds all of some ranges."""
    all_R2V = np.stack(ranges)
    return np.stack([all_R2V[:, 0].min(axis=0), all_R2V[:, 1].max(axis=0)])


class Elimination(Generic[M]):
    """The messages of the slots that hang on the root.

    Args:
        space: the search space.
        order: its order of elimination for these tables.
        tables: for every set of slots, an array with one axis per slot and a last one of V columns.
        algebra: makes the messages.
    """

    def __init__(
        self, space: SearchSpace, order: Order, tables: Mapping[Slots, np.ndarray], algebra: Algebra[M]
    ) -> None:
        self._space, self._order, self._tables, self._algebra = space, order, tables, algebra
        self._columns = next(iter(tables.values())).shape[-1]
        self._found: dict[tuple[int, Slots], M] = {}

    def cases(self) -> Iterator[tuple[Given, np.ndarray, list[M]]]:
        """Yield the options of the root, what they cost themselves (V,), and the messages of the rest."""
        root = self._order.root
        for options in product(*(range(self._space.slot_sizes[slot]) for slot in root)):
            given = dict(zip(root, options, strict=True))
            if self._space.is_canonical(given):
                yield given, self._cost(None, given), self._below(None, given)

    def _below(self, slot: int | None, given: Given) -> list[M]:
        """Return the messages of the slots that hang on a slot."""
        return [self._message(child, given) for child in self._order.children[slot]]

    def _message(self, slot: int, given: Given) -> M:
        known = {other: given[other] for other in self._order.neighbours[slot]}
        key = slot, tuple(known.values())
        if key not in self._found:
            size = self._space.slot_sizes[slot] if self._space.is_active(slot, known) else 1
            options = [{**known, slot: option} for option in range(size)]
            costs_OV = np.stack([self._cost(slot, each) for each in options])
            messages = [self._algebra.together(self._below(slot, each)) for each in options]
            self._found[key] = self._algebra.either(slot, costs_OV, messages)
        return self._found[key]

    def _cost(self, slot: int | None, given: Given) -> np.ndarray:
        """Return what the tables say that are read when a slot is eliminated."""
        rows = (self._tables[slots][tuple(given[each] for each in slots)] for slots in self._order.homes[slot])
        return sum(rows, np.zeros(self._columns, dtype=np.int64))
