"""Widths in multiples: the fixed size `round_to` of a space, which processors that compute in blocks are fast with.

A family rounds every width that follows from a choice: channels that are a choice, and what is derived of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor
from typing import Annotated

from pydantic import Field

from nasmvt.errors import UserError


def multiple(width: float, of: int) -> int:
    """Return the multiple of a number that is nearest to a width, one at least; of 1, the width without its fraction.

    Halves are rounded up, so that a larger width never becomes a smaller one.
    """
    return int(width) if of == 1 else max(1, floor(width / of + 0.5)) * of


def check_divides(round_to: int, **widths: int) -> None:
    """Refuse fixed widths whose multiples are no multiples of `round_to`.

    Raises:
        UserError: naming the first.
    """
    for name, width in widths.items():
        if width % round_to:
            raise UserError(
                f"widths are rounded to multiples of round_to {round_to}, which {name} {width} must be as well: change "
                "one of them"
            )


@dataclass(frozen=True)
class Rounded:
    """Marks the options of a choice as widths: what becomes of one by `round_to`."""

    to: Callable[[int, int], int] = multiple

    def check(self, name: str, options: Sequence[int], round_to: int) -> None:
        """Refuse options of which two become the same width.

        Raises:
            UserError: naming them.
        """
        known: dict[int, int] = {}
        for option in options:
            first = known.setdefault(self.to(option, round_to), option)
            if first != option:
                raise UserError(
                    f"the options {first} and {option} of {name} are the same width in multiples of round_to "
                    f"{round_to}: remove one of them"
                )


Width = Annotated[int, Field(ge=1), Rounded()]
"""The type of a choice of channels."""
