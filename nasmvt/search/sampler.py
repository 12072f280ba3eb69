"""Archs within the budget, none of them twice, in bounded time."""

from collections.abc import Callable, Container, Iterator
from itertools import product

import numpy as np

from nasmvt.errors import UserError
from nasmvt.space import Arch, SearchSpace

Feasible = Callable[[Arch], bool]
"""Whether an arch may be evaluated, by the budget for example."""

TRIES = 100
"""Draws in a row that may give nothing new before a search looks elsewhere."""
ENUMERABLE = 4096
"""Archs of a space that is gone through one by one once draws give nothing new."""


class FeasibleSampler:
    """Draws archs of a space for which `feasible` holds.

    Args:
        space: the search space.
        feasible: asked for every arch before it is handed out; best cached.

    Raises:
        UserError: if not even the smallest arch is feasible.
    """

    def __init__(self, space: SearchSpace, feasible: Feasible) -> None:
        if not feasible(space.smallest):
            raise UserError(
                f"a search needs archs within the budget, but not even the smallest of {space.name} is: "
                "raise --budget or give the space smaller options"
            )
        self.space = space
        self._feasible = feasible

    def repair(self, arch: Arch, rng: np.random.Generator) -> Arch:
        """Lower choices at random, one option at a time, until the arch is feasible.

        The whole way down to the smallest arch is drawn first and the first feasible place on it found by
        bisection, since the predicate may build networks: six calls instead of sixty.
        """
        if self._feasible(arch):
            return arch
        start = self.space.encode(arch)
        steps = rng.permutation(np.repeat(np.arange(len(start)), start.clip(min=0)))

        def lowered(count: int) -> Arch:
            indices = start.clip(min=0)
            np.subtract.at(indices, steps[:count], 1)
            return self.space.decode(indices)

        infeasible, feasible = 0, len(steps)
        while feasible - infeasible > 1:
            middle = (infeasible + feasible) // 2
            if self._feasible(lowered(middle)):
                feasible = middle
            else:
                infeasible = middle
        return lowered(feasible)

    def fresh(self, draw: Callable[[], Arch], seen: Container[Arch], rng: np.random.Generator) -> Arch | None:
        """Return a feasible arch made from `draw` that is not in `seen`; None after too many tries."""
        for _ in range(TRIES):
            arch = self.repair(draw(), rng)
            if arch not in seen:
                return arch
        return None

    def random(self, seen: Container[Arch], rng: np.random.Generator) -> Arch | None:
        """Return a random feasible arch that is not in `seen`; None if there is none to be found.

        In a small space None means that everything feasible has been seen.
        """
        found = self.fresh(lambda: self.space.sample(rng), seen, rng)
        if found is not None or self.space.size > ENUMERABLE:
            return found
        archs = list(every_arch(self.space))
        order = (archs[index] for index in rng.permutation(len(archs)))
        return next((arch for arch in order if arch not in seen and self._feasible(arch)), None)


def every_arch(space: SearchSpace) -> Iterator[Arch]:
    """Yield every arch of a space once."""
    once = [name for name, choice in space.choices.items() if choice.per is None]
    for options in product(*(space.choices[name].options for name in once)):
        at = dict(zip(once, options, strict=True))
        blocks = [
            (name, block)
            for name, block in space.slots
            if block is not None and block < int(at[str(space.choices[name].per)])
        ]
        for genes in product(*(space.choices[name].options for name, _ in blocks)):
            chosen = dict(zip(blocks, genes, strict=True))
            yield space.build(lambda choice, name, block: at[name] if block is None else chosen[name, block])  # noqa: B023
