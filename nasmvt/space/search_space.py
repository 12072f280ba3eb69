"""The search space: ordered choices, the family that builds their networks, and fixed sizes."""

from collections.abc import Callable, Mapping
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from nasmvt.config import Config
from nasmvt.errors import UserError, listed, nearest
from nasmvt.space.arch import Arch, Option, Value
from nasmvt.space.choice import Choice
from nasmvt.space.sharing import Role, Roles
from nasmvt.space.task_choice import TaskChoice, flattened

Pick = Callable[[Choice, str, int | None], Option]
"""Chooses an option: given the choice, its name, and the block (None for a choice made once)."""


class SearchSpace(Config):
    """Ordered choices + family + fixed sizes.

    A choice with `per: depth` is made for every block, and `depth` is itself a choice: an arch has as
    many entries as its own depth asks for. Choices of blocks beyond it do not exist.
    """

    name: str
    """Name of the space; for a shipped one, the file's name without suffix."""
    family: str
    """The backbone family that builds a network of an arch (see `nasmvt.families`)."""
    choices: dict[str, Choice]
    """The decisions, in order; a plain list in YAML is a choice made once."""
    fixed: dict[str, Any] = Field(default_factory=dict)
    """Sizes that do not vary, passed to the family by keyword. `round_to: 8`, which may stand at the top of the file as
    well, makes every width that follows from a choice the nearest multiple of 8."""
    roles: dict[str, Role] | None = None
    """Layer patterns and their roles (specific, adaptive, shared); None: the family's own."""
    archs: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Named archs, published ones for example."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, values: Any) -> Any:
        if isinstance(values, dict) and "round_to" in values:
            sizes = values.get("fixed") or {}
            if "round_to" in sizes:
                raise ValueError("'round_to' is given twice, at the top and among the fixed sizes: remove one of them")
            rest = {key: value for key, value in values.items() if key != "round_to"}
            values = {**rest, "fixed": {"round_to": values["round_to"], **sizes}}
        if isinstance(values, dict) and isinstance(values.get("choices"), dict):
            choices = flattened(values["choices"])
            full = {k: {"options": v} if isinstance(v, list) else v for k, v in choices.items()}
            return {**values, "choices": full}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> "SearchSpace":
        if not self.choices:
            raise ValueError("a search space needs at least one choice")
        for chosen in self.task_choices:
            chosen.check(self.choices[chosen.name])
        for name, choice in self.choices.items():
            if choice.per is None:
                continue
            count = self.choices.get(choice.per)
            if count is None or count.per is not None:
                raise ValueError(f"choice {name!r} is made per {choice.per!r}, which is no choice made once")
            if not all(type(option) is int and option > 0 for option in count.options):
                raise ValueError(f"{choice.per!r} counts blocks, so its options must be positive integers")
        for named in self.archs:
            try:
                self.named(named)
            except UserError as error:
                raise ValueError(f"arch {named!r}: {error}") from None
        return self

    # -- parts of tasks ---------------------------------------------------------------------------

    @cached_property
    def task_choices(self) -> tuple[TaskChoice, ...]:
        """The choices that belong to a part of a task."""
        return tuple(chosen for name in self.choices if (chosen := TaskChoice.of(name)))

    @cached_property
    def backbone_choices(self) -> dict[str, Choice]:
        """The choices that the family reads."""
        others = {chosen.name for chosen in self.task_choices}
        return {name: choice for name, choice in self.choices.items() if name not in others}

    def chosen_for(self, task: str, arch: Arch) -> tuple[tuple[TaskChoice, int], ...]:
        """Return what an arch chooses for the parts of a task."""
        return tuple((chosen, arch[chosen.name]) for chosen in self.task_choices if chosen.task == task)  # type: ignore[misc]

    # -- building archs ---------------------------------------------------------------------------

    def build(self, pick: Pick) -> Arch:
        """Return the arch whose options `pick` chooses, one choice after the other."""
        once = {name: pick(c, name, None) for name, c in self.choices.items() if c.per is None}

        def value(name: str, choice: Choice) -> Value:
            if choice.per is None:
                return once[name]
            return tuple(pick(choice, name, block) for block in range(int(once[choice.per])))

        return Arch(tuple((name, value(name, choice)) for name, choice in self.choices.items()))

    def arch(self, values: Mapping[str, Any], source: str = "the arch") -> Arch:
        """Return the canonical arch of plain values.

        Args:
            values: option (or list of options, one per block) of every choice; a part of a task that they don't
                mention is the largest.
            source: where the values come from, named in errors.

        Raises:
            UserError: if a choice is unknown or missing, an option does not exist, or a list has
                another length than its `per` choice asks for.
        """
        for name in values:
            if name not in self.choices:
                raise UserError(
                    f"{source} names the choice {name!r}, unknown in {self.name}{nearest(name, self.choices)}"
                )

        def pick(choice: Choice, name: str, block: int | None) -> Option:
            if name not in values:
                if TaskChoice.of(name):  # archs that are older than the choice, or know of no tasks
                    return choice.largest
                raise UserError(f"{source} lacks the choice {name!r} of {self.name}: add it")
            given = values[name]
            if block is not None:
                count = int(values[str(choice.per)])
                if not isinstance(given, (list, tuple)) or len(given) != count:
                    raise UserError(
                        f"{source} must give {count} values for {name!r} ({choice.per} is {count}), not {given!r}"
                    )
                given = given[block]
            if isinstance(given, (list, tuple)) or given not in choice.options:
                raise UserError(f"{source} has {name}={given!r}, but {self.name} offers {listed(choice.options)}")
            return choice.options[choice.options.index(given)]

        return self.build(pick)

    def named(self, name: str) -> Arch:
        """Return a named arch of the space's file.

        Raises:
            UserError: if the space has no arch of that name.
        """
        if name not in self.archs:
            known = listed(self.archs) or "none"
            raise UserError(f"{self.name} has no arch named {name!r}{nearest(name, self.archs)} (named archs: {known})")
        return self.arch(self.archs[name], f"arch {name!r}")

    @property
    def smallest(self) -> Arch:
        """The arch of first options."""
        return self.build(lambda choice, name, block: choice.smallest)

    @property
    def largest(self) -> Arch:
        """The arch of last options."""
        return self.build(lambda choice, name, block: choice.largest)

    @property
    def covering(self) -> list[Arch]:
        """The fewest archs in which every option of every choice occurs, the smallest and the largest among them."""
        places = max(len(choice.options) for choice in self.choices.values())

        def at(place: int) -> Pick:
            return lambda choice, name, block: choice.options[min(place, len(choice.options) - 1)]

        return [self.build(at(place)) for place in range(places)]

    # -- randomness -------------------------------------------------------------------------------

    def sample(self, rng: np.random.Generator) -> Arch:
        """Draw every active choice independently and uniformly from its options."""
        return self.build(lambda choice, name, block: _draw(choice, rng))

    def mutate(
        self, arch: Arch, rng: np.random.Generator, probability: float = 0.2, global_probability: float = 0.4
    ) -> Arch:
        """Redraw each choice with a probability; blocks that a deeper arch gains are drawn at random.

        Args:
            arch: the parent.
            rng: source of randomness.
            probability: of redrawing a choice made per block, for each block.
            global_probability: of redrawing a choice made once (depth, width). Both as in
                AutoFormer's search (Chen et al., ICCV 2021): 0.2 and 0.4.
        """

        def pick(choice: Choice, name: str, block: int | None) -> Option:
            old = _gene(arch, name, block)
            chance = global_probability if block is None else probability
            return _draw(choice, rng) if old is None or rng.random() < chance else old

        return self.build(pick)

    def crossover(self, first: Arch, second: Arch, rng: np.random.Generator) -> Arch:
        """Take each choice from one of two parents, with equal probability.

        The depth comes from one parent like every other choice, and a block that only one parent has
        comes from that one: parents of different depth always have children.
        """

        def pick(choice: Choice, name: str, block: int | None) -> Option:
            genes = [gene for gene in (_gene(first, name, block), _gene(second, name, block)) if gene is not None]
            return genes[int(rng.integers(len(genes)))]

        return self.build(pick)

    # -- numbers ----------------------------------------------------------------------------------

    @cached_property
    def slots(self) -> tuple[tuple[str, int | None], ...]:
        """Every decision that an arch can hold: (choice, block), those of blocks up to the largest depth."""
        found: list[tuple[str, int | None]] = []
        for name, choice in self.choices.items():
            if choice.per is None:
                found.append((name, None))
            else:
                found.extend((name, block) for block in range(int(self.choices[choice.per].largest)))
        return tuple(found)

    @cached_property
    def slot_sizes(self) -> tuple[int, ...]:
        """Number of options of every slot."""
        return tuple(len(self.choices[name].options) for name, _ in self.slots)

    @cached_property
    def count_slots(self) -> tuple[int | None, ...]:
        """For every slot of a block, the slot that says how many blocks there are."""
        places = {slot: place for place, slot in enumerate(self.slots)}
        counts = (self.choices[name].per for name, _ in self.slots)
        return tuple(None if count is None else places[count, None] for count in counts)

    def is_active(self, slot: int, indices: Mapping[int, int]) -> bool:
        """Return whether the block of a slot exists with some slots' options.

        Args:
            slot: place in `slots`.
            indices: option indices by slot; where the number of blocks is not among them, the block may exist.
        """
        (name, block), count = self.slots[slot], self.count_slots[slot]
        if block is None or count is None or count not in indices:
            return True
        return block < int(self.choices[str(self.choices[name].per)].options[indices[count]])

    def is_canonical(self, indices: Mapping[int, int]) -> bool:
        """Return whether all inactive slots among some slots' option indices are 0."""
        return all(not index or self.is_active(slot, indices) for slot, index in indices.items())

    def encode(self, arch: Arch) -> np.ndarray:
        """Return the option indices of an arch, int64 of length `len(slots)`; -1 where a slot is inactive."""
        genes = ((name, _gene(arch, name, block)) for name, block in self.slots)
        return np.array(
            [-1 if gene is None else self.choices[name].options.index(gene) for name, gene in genes],
            dtype=np.int64,
        )

    def decode(self, indices: np.ndarray) -> Arch:
        """Return the arch of an index vector; values of inactive slots are ignored."""
        at = dict(zip(self.slots, map(int, indices), strict=True))
        return self.build(lambda choice, name, block: choice.options[at[name, block]])

    @property
    def size(self) -> int:
        """Number of archs in the space."""
        counted = {choice.per for choice in self.choices.values() if choice.per is not None}
        total = prod(
            len(choice.options) for name, choice in self.choices.items() if choice.per is None and name not in counted
        )
        for count in counted:
            ways = prod(len(choice.options) for choice in self.choices.values() if choice.per == count)
            total *= sum(ways ** int(option) for option in self.choices[count].options)
        return total

    def layer_roles(self, default: Roles) -> Roles:
        """Return the space's own roles, or the family's where the space names none."""
        return default if self.roles is None else Roles.of(self.roles)


def _draw(choice: Choice, rng: np.random.Generator) -> Option:
    return choice.options[int(rng.integers(len(choice.options)))]


def _gene(arch: Arch, name: str, block: int | None) -> Option | None:
    """Return an arch's option, or None where it has no such block."""
    value = arch[name]
    if block is None:
        return value  # type: ignore[return-value]
    options: tuple[Option, ...] = value  # type: ignore[assignment]
    return options[block] if block < len(options) else None
