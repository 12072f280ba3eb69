"""What the dimensions of a network's tensors consist of: factors that several tensors have in common.

A dimension is a sequence of factors, the outermost first, whose sizes multiply to its length: the rows of a `qkv` are
(3, heads, channels), its input is one factor that the position table, the norms and the other layers have too.
"""

from collections.abc import Sequence
from math import prod


class Factor:
    """A factor of dimensions; compare it by identity, and only after `Dim.factors` has resolved it.

    Args:
        size: its number of indices.
        fixed: why it can't vary; "": nothing speaks against it.
    """

    def __init__(self, size: int, fixed: str = "") -> None:
        self.size = size
        self._fixed = fixed
        self._parts: list[Factor] = []
        """What it was found to be the same as (one), or to consist of."""

    def resolved(self) -> "list[Factor]":
        """Return what it consists of by now; factors of size 1 are left out."""
        if not self._parts:
            return [self] if self.size > 1 else []
        found = [factor for part in self._parts for factor in part.resolved()]
        self._parts = found or self._parts
        return found

    @property
    def fixed(self) -> str:
        """Why it can't vary."""
        return self._fixed

    def fix(self, reason: str) -> None:
        """Note why it, or all that it consists of, can't vary; the first reason stays."""
        if self._parts:
            for part in self._parts:
                part.fix(reason)
        elif not self._fixed:
            self._fixed = reason

    def become(self, *parts: "Factor") -> None:
        """Note that it is the same as another factor, or consists of several."""
        for part in parts:
            if self._fixed:
                part.fix(self._fixed)
        self._parts = list(parts)

    def split(self, outer: int) -> "tuple[Factor, Factor]":
        """Divide it into two, of which the outer one has a size that divides its own."""
        parts = Factor(outer), Factor(self.size // outer)
        self.become(*parts)
        return parts


Dim = Sequence[Factor]
"""The factors of one dimension, the outermost first."""


def factors(dim: Dim) -> list[Factor]:
    """Return the factors of a dimension as they are known by now."""
    return [found for factor in dim for found in factor.resolved()]


def fix(dim: Dim, reason: str) -> None:
    """Note why a dimension can't vary."""
    for factor in dim:
        factor.fix(reason)


def join(first: Dim, second: Dim) -> None:
    """Note that two dimensions of one length have the same indices."""
    left, right = _Queue(first), _Queue(second)
    while (a := left.pop()) and (b := right.pop()):
        if a is b:
            continue
        if a.size == b.size:
            b.become(a)
        elif a.size % b.size == 0:
            outer, inner = a.split(b.size)
            b.become(outer)
            left.put_back(inner)
        elif b.size % a.size == 0:
            outer, inner = b.split(a.size)
            a.become(outer)
            right.put_back(inner)
        else:
            mine, others = [a], [b]
            while (difference := _size(mine) - _size(others)) and (more := (right if difference > 0 else left).pop()):
                (others if difference > 0 else mine).append(more)
            fix([*mine, *others], "is divided in two ways")


def regroup(dims: Sequence[Dim], sizes: Sequence[int]) -> list[Dim]:
    """Return the dimensions of a tensor that is viewed in other sizes."""
    rest, wanted = _Queue([factor for dim in dims for factor in dim]), list(sizes)[::-1]
    found: list[Dim] = []
    while wanted:
        size, dim = wanted.pop(), list[Factor]()
        while (lacking := size // _size(dim)) > 1:
            first = rest.pop()
            assert first is not None
            if lacking % first.size == 0:
                dim.append(first)
            elif first.size % lacking == 0:
                outer, inner = first.split(lacking)
                dim.append(outer)
                rest.put_back(inner)
            else:  # up to where both divisions meet, nothing is followed
                dim.append(first)
                together = [size]
                while (difference := _size(dim) - prod(together)) != 0:
                    if difference > 0:
                        together.append(wanted.pop())
                    elif more := rest.pop():
                        dim.append(more)
                fix(dim, "is divided in two ways")
                found.extend([Factor(each, "is divided in two ways")] for each in together[:-1])
                dim, size = [Factor(together[-1], "is divided in two ways")], together[-1]
        found.append(dim)
    return found


def _size(dim: Dim) -> int:
    return prod(factor.size for factor in dim)


class _Queue:
    """The factors of a dimension, taken one by one as they are known by then."""

    def __init__(self, dim: Dim) -> None:
        self._rest = list(dim)[::-1]

    def pop(self) -> Factor | None:
        while self._rest:
            first = self._rest.pop()
            pieces = first.resolved()
            if pieces == [first]:
                return first
            self._rest.extend(reversed(pieces))
        return None

    def put_back(self, factor: Factor) -> None:
        self._rest.append(factor)
