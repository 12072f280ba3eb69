"""One named decision and its options."""

from pydantic import field_validator

from nasmvt.config import Config
from nasmvt.space.arch import Option


class Choice(Config):
    """One decision with its options, made once or once per block."""

    options: tuple[Option, ...]
    """What may be chosen; numbers in ascending order, so that the first gives the smallest network."""
    per: str | None = None
    """Name of the global choice that gives the number of times this one is made (usually `depth`); None: once."""

    @field_validator("options")
    @classmethod
    def _valid(cls, options: tuple[Option, ...]) -> tuple[Option, ...]:
        if not options:
            raise ValueError("a choice needs at least one option")
        if len(set(options)) != len(options):
            raise ValueError("the options of a choice must differ")
        numbers = [option for option in options if isinstance(option, (int, float))]
        if len(numbers) == len(options) and numbers != sorted(numbers):
            raise ValueError("the options of a choice must be in ascending order")
        return options

    @property
    def smallest(self) -> Option:
        """The first option."""
        return self.options[0]

    @property
    def largest(self) -> Option:
        """The last option."""
        return self.options[-1]
