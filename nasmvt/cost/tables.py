"""Cost tables of archs, derived from about a hundred measured archs of a space.

What one item of a network costs (a tensor's elements, a module's operations) depends on a few slots of the arch:
the width and the block's own heads, say. The tables find these slots by changing one at a time, measure every
combination of their options once, and are then checked on random archs; a contradiction names one more slot. They
depend on no family, only on a function that measures an arch.

Shapes: N archs, S slots of the space (see `SearchSpace.slots`), V columns.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import product
from math import prod

import numpy as np

from nasmvt.errors import UserError
from nasmvt.space import Arch, SearchSpace

Measure = Callable[[Arch], Mapping[str, int]]
"""Gives the cost of every item of an arch by name; what an arch does not have is left out or 0."""

CHECKS = 16
"""Consecutive random archs that tables must predict before they are accepted."""
LARGEST_TABLE = 100_000
"""Combinations that one item may depend on."""
MERGED = 4096
"""Entries up to which tables are merged for adding up fast."""
CHUNK = 8192
"""Archs whose costs are summed at once: as many as fit into a processor's cache."""

Slots = tuple[int, ...]


class Tables:
    """Costs of archs as sums of table entries.

    Args:
        space: the search space.
        entries: for every set of slots, an array with one axis per slot, of its number of options, and a last axis
            of V columns; int64. The cost of an arch is the sum over all sets.
    """

    def __init__(self, space: SearchSpace, entries: Mapping[Slots, np.ndarray]) -> None:
        self.space = space
        self.entries = dict(entries)
        flat = [_flat(slots, values, len(space.slots)) for slots, values in _merge(self.entries, space)]
        self._strides_ST = np.stack([strides_S for strides_S, _ in flat], axis=1)
        self._rows = [rows for _, rows in flat]

    @property
    def columns(self) -> int:
        """Number of columns V."""
        return int(self._rows[0].shape[-1])

    def __call__(self, indices_NS: np.ndarray) -> np.ndarray:
        """Return the costs (N, V) of archs given by option indices (N, S); -1 stands in inactive slots."""
        found = np.empty((len(indices_NS), self.columns), dtype=np.int64)
        for start in range(0, len(indices_NS), CHUNK):
            part = slice(start, start + CHUNK)
            # Floats of this size are exact, and their matrix product is the fast one.
            places_NT = (np.maximum(indices_NS[part], 0).astype(np.float64) @ self._strides_ST).astype(np.intp)
            found[part] = sum(rows[places_NT[:, place]] for place, rows in enumerate(self._rows))
        return found

    def of(self, arch: Arch) -> np.ndarray:
        """Return the costs (V,) of one arch."""
        found: np.ndarray = self(self.space.encode(arch)[None])[0]
        return found


class ItemTables:
    """The cost of every item of a space's networks, by the slots that it depends on.

    Args:
        space: the search space.
        measure: measures one arch; called for about a hundred of them.

    Raises:
        UserError: if an item depends on so many choices at once that no table can hold it.
    """

    def __init__(self, space: SearchSpace, measure: Measure) -> None:
        self.space = space
        self._measure = measure
        self._sizes = space.slot_sizes
        self._seen: dict[Slots, Mapping[str, int]] = {}
        self.slots: dict[str, Slots] = {}
        self._derive()
        self._tables = {slots: self._table(slots) for slots in set(self.slots.values())}

    def cost(self, item: str, indices: Slots) -> int:
        """Return what an item costs in an arch given by option indices, anything standing in inactive slots."""
        slots = self.slots[item]
        return int(self._tables[slots][item][_pick(indices, slots)])

    def add_up(self, columns: Iterable[Mapping[str, int]]) -> Tables:
        """Return the tables of weighted sums of items: one column per mapping of item to weight."""
        entries: dict[Slots, np.ndarray] = {}
        columns = list(columns)
        for place, weights in enumerate(columns):
            for item, weight in weights.items():
                slots = self.slots[item]
                if slots not in entries:
                    shape = (*(self._sizes[slot] for slot in slots), len(columns))
                    entries[slots] = np.zeros(shape, dtype=np.int64)
                entries[slots][..., place] += weight * self._tables[slots][item]
        return Tables(self.space, entries or {(): np.zeros((max(len(columns), 1),), dtype=np.int64)})

    # -- deriving ---------------------------------------------------------------------------------

    def _derive(self) -> None:
        """Find the slots of every item, then check them on random archs until nothing contradicts."""
        self._flip_each(self._canonical(self.space.encode(self.space.largest)))
        rng = np.random.default_rng(0)
        self._cover(rng)
        agreed = 0
        while agreed < CHECKS:
            found = self._contradictions(self._canonical(self.space.encode(self.space.sample(rng))))
            agreed = 0 if found else agreed + 1
            for item, slot in found.items():
                self.slots[item] = tuple(sorted({*self.slots[item], slot}))
            if found:
                self._cover(rng)

    def _probe(self, indices: Slots) -> Mapping[str, int]:
        """Return the items of an arch; measured once."""
        if indices not in self._seen:
            items = self._measure(self.space.decode(np.array(indices)))
            self._seen[indices] = items
            for item in items:
                self.slots.setdefault(item, ())
        return self._seen[indices]

    def _canonical(self, indices: Iterable[int]) -> Slots:
        """Return indices with 0 in the inactive slots."""
        given = {slot: max(int(index), 0) for slot, index in enumerate(indices)}
        return tuple(index if self.space.is_active(slot, given) else 0 for slot, index in given.items())

    def _flip_each(self, base: Slots) -> None:
        """Change one slot after the other to its other end and note whose cost changes."""
        before = self._probe(base)
        for slot, size in enumerate(self._sizes):
            changed = list(base)
            changed[slot] = 0 if base[slot] else size - 1
            flipped = self._canonical(changed)
            if flipped == base:
                continue
            after = self._probe(flipped)
            for item in before.keys() | after.keys():
                if before.get(item, 0) != after.get(item, 0):
                    self.slots[item] = tuple(sorted({*self.slots[item], slot}))

    def _cover(self, rng: np.random.Generator) -> None:
        """Measure archs until every item was seen with all combinations of the options of its slots."""
        open_ = {slots: set(self._combinations(slots)) for slots in set(self.slots.values())}
        for indices in self._seen:
            _tick(open_, indices)
        while pending := sorted((s for s in open_ if open_[s]), key=lambda s: (-len(open_[s]), s)):
            chosen: dict[int, int] = {}
            for slots in pending:
                for combination in sorted(open_[slots]):
                    given = dict(zip(slots, combination, strict=True))
                    both = {**chosen, **given}
                    fits = all(chosen.get(slot, index) == index for slot, index in given.items())
                    if fits and self.space.is_canonical(both):
                        chosen = both
                        break
            drawn = self._canonical(chosen.get(slot, int(rng.integers(size))) for slot, size in enumerate(self._sizes))
            self._probe(drawn)
            _tick(open_, drawn)

    def _combinations(self, slots: Slots) -> list[Slots]:
        """Return the combinations of options of some slots that differ, 0 standing in inactive slots."""
        sizes = [self._sizes[slot] for slot in slots]
        if prod(sizes) > LARGEST_TABLE:
            names = sorted({self.space.slots[slot][0] for slot in slots})
            raise UserError(
                f"a part of the networks of {self.space.name} depends on {len(slots)} choices at once "
                f"({', '.join(names)}), too many for a table of its costs: let the family depend on fewer"
            )
        found = []
        for combination in product(*(range(size) for size in sizes)):
            if self.space.is_canonical(dict(zip(slots, combination, strict=True))):
                found.append(combination)
        return found

    def _contradictions(self, indices: Slots) -> dict[str, int]:
        """Return the items whose cost in an arch is not what their slots say, with one more slot that matters."""
        known = {slots: {_pick(seen, slots): seen for seen in self._seen} for slots in set(self.slots.values())}
        truth = self._probe(indices)
        found = {}
        for item, slots in list(self.slots.items()):
            twin = known.get(slots, {}).get(_pick(indices, slots))
            if twin is None or truth.get(item, 0) != self._seen[twin].get(item, 0):
                found[item] = self._difference(item, indices, twin)
        return found

    def _difference(self, item: str, first: Slots, second: Slots | None) -> int:
        """Return a slot whose change between two archs changes an item's cost, by bisection."""
        second = self._canonical(self.space.encode(self.space.smallest)) if second is None else second
        differing = [slot for slot in range(len(first)) if first[slot] != second[slot]]
        cost = self._probe(first).get(item, 0)
        low, high = 0, len(differing)
        while high - low > 1:
            middle = (low + high) // 2
            mixed = list(first)
            for slot in differing[:middle]:
                mixed[slot] = second[slot]
            if self._probe(self._canonical(mixed)).get(item, 0) == cost:
                low = middle
            else:
                high = middle
        return differing[low]

    def _table(self, slots: Slots) -> dict[str, np.ndarray]:
        """Return the costs of all items that depend on some slots; inactive slots have no influence."""
        items = [item for item, its in self.slots.items() if its == slots]
        at = {_pick(seen, slots): costs for seen, costs in self._seen.items()}
        tables = {item: np.zeros([self._sizes[slot] for slot in slots], dtype=np.int64) for item in items}
        for combination in product(*(range(self._sizes[slot]) for slot in slots)):
            given = dict(zip(slots, combination, strict=True))
            active = tuple(index if self.space.is_active(slot, given) else 0 for slot, index in given.items())
            for item in items:
                tables[item][combination] = at[active].get(item, 0)
        return tables


def _pick(indices: Slots, slots: Slots) -> Slots:
    return tuple(indices[slot] for slot in slots)


def _tick(open_: Mapping[Slots, set[Slots]], indices: Slots) -> None:
    for slots, combinations in open_.items():
        combinations.discard(_pick(indices, slots))


def _merge(entries: Mapping[Slots, np.ndarray], space: SearchSpace) -> list[tuple[Slots, np.ndarray]]:
    """Join tables as long as they stay small: fewer look-ups per arch."""
    merged: list[tuple[Slots, np.ndarray]] = []
    for slots, values in sorted(entries.items()):
        for place, (others, sums) in enumerate(merged):
            both = tuple(sorted({*slots, *others}))
            if prod(space.slot_sizes[slot] for slot in both) <= MERGED:
                merged[place] = (both, spread(slots, values, both) + spread(others, sums, both))
                break
        else:
            merged.append((slots, values))
    return merged


def spread(slots: Slots, values: np.ndarray, both: Slots) -> np.ndarray:
    """Return a table with an axis of length 1 for every slot that it does not depend on."""
    shape = [values.shape[slots.index(slot)] if slot in slots else 1 for slot in both]
    return values.reshape(*shape, values.shape[-1])


def _flat(slots: Slots, values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what turns indices (N, S) into rows, and the rows (entries, V)."""
    strides_S = np.zeros(count)
    stride = 1
    for slot, size in reversed(list(zip(slots, values.shape, strict=False))):
        strides_S[slot] = stride
        stride *= size
    return strides_S, np.ascontiguousarray(values.reshape(stride, values.shape[-1]))
