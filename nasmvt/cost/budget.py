"""An upper bound on the total parameters."""

import re
from dataclasses import dataclass
from fractions import Fraction

from nasmvt.cost.parameters import ParameterCounter
from nasmvt.errors import UserError
from nasmvt.space import Arch

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9}
_COUNT = re.compile(r"(\d[\d_,]*(?:\.\d+)?)\s*([KMBG]?)", re.IGNORECASE)


def parse_count(text: str) -> int:
    """Read a number of parameters: 135M, 1.2B, 500k, 86_300_000.

    Raises:
        UserError: if the text is no positive number.
    """
    match = _COUNT.fullmatch(text.strip())
    number = Fraction(match[1].replace("_", "").replace(",", "")) * _UNITS[match[2].upper()] if match else Fraction(0)
    if number < 1:
        raise UserError(f"a budget is a number of parameters such as 135M, 1.2B or 86_300_000, not {text!r}")
    return int(number)


@dataclass(frozen=True)
class Budget:
    """An upper bound on the total parameters of all task networks, heads included."""

    parameters: int | None
    """The bound; None: no bound."""

    def allows(self, counter: ParameterCounter, arch: Arch) -> bool:
        """Return whether an arch is within the budget."""
        return self.parameters is None or counter.total(arch) <= self.parameters

    def check(self, counter: ParameterCounter) -> str | None:
        """Compare the budget with the space.

        Returns:
            A sentence if the budget does not bind, else None.

        Raises:
            UserError: if not even the smallest subnet is within it.
        """
        if self.parameters is None:
            return None
        smallest, largest = counter.total(counter.space.smallest), counter.total(counter.space.largest)
        name = counter.space.name
        if self.parameters < smallest:
            raise UserError(
                f"a budget of {self.parameters:,} parameters is below the smallest network of {name}, "
                f"{smallest:,} in total: raise --budget or give the space smaller options"
            )
        if self.parameters >= largest:
            return f"the budget of {self.parameters:,} does not bind: the largest network of {name} has {largest:,}"
        return None
