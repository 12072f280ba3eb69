"""How many workers evaluate: a number, or a range on a cluster whose nodes come and go."""

from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator

from nasmvt.config import Config
from nasmvt.errors import UserError


class WorkerRange(Config):
    """Workers that come and go with the nodes of a cluster."""

    min: int = Field(ge=0)
    """The search begins and goes on with so few, and stops when there are fewer for minutes; 0: it waits for nodes
    for as long as it takes."""

    max: int = Field(ge=1)
    """New nodes are used up to so many."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"'min' ({self.min}) can't exceed 'max' ({self.max}): lower 'min' or raise 'max'")
        return self


def _form(value: Any) -> str:
    return "range" if isinstance(value, dict | WorkerRange) else "number"


WorkerCount = Annotated[
    Annotated[int, Field(ge=0), Tag("number")] | Annotated[WorkerRange, Tag("range")], Discriminator(_form)
]
"""A number of workers, or a range."""


def parse_workers(text: str | None) -> int | dict[str, int] | None:
    """Read a number of workers, or a range of them: "4", "2..8"; None stays None.

    Raises:
        UserError: if the text is of no such form.
    """
    if text is None:
        return None
    low, dots, high = text.partition("..")
    numbers = [low, high] if dots else [low]
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise UserError(f"--workers takes a number such as 4, or a range such as 2..8, not {text!r}: give one of these")
    return {"min": int(low), "max": int(high)} if dots else int(low)
