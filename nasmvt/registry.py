"""Things that are found by name: those that come with nasmvt, and those of a module of the user's."""

import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Generic, TypeVar

from nasmvt.errors import UserError, listed, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """Values by name.

    Args:
        what: what a value is called in sentences ("family").
        builtin: modules that register what comes with nasmvt, imported when a name is first looked up.
    """

    def __init__(self, what: str, builtin: Sequence[str] = ()) -> None:
        self._what = what
        self._builtin = list(builtin)
        self._values: dict[str, T] = {}
        self._homes: dict[str, str] = {}

    def add(self, name: str, value: T, home: str) -> None:
        """Register a value; a module that is imported again replaces its own.

        Args:
            name: what it is called.
            value: the value.
            home: the module that it comes from.

        Raises:
            UserError: if another module has registered that name.
        """
        if self._homes.setdefault(name, home) != home:
            raise UserError(
                f"a {self._what} has a name of its own, but {name!r} is registered by {self._homes[name]}: rename "
                f"the one in {home}"
            )
        self._values[name] = value

    def get(self, name: str) -> T:
        """Return the value of a name.

        Args:
            name: a registered one, or "module:name" for one that a module of the user's registers when it is imported;
                modules are looked for in the working directory too.

        Raises:
            UserError: if there is none of that name, or no such module.
        """
        module, colon, own = name.rpartition(":")
        if colon:
            self._import(module)
        known = sorted(self)
        if own not in self._values:
            raise UserError(f"unknown {self._what} {own!r}{nearest(own, known)} (known: {listed(known)})")
        return self._values[own]

    def check(self, name: str) -> str:
        """Return the name that a setting gives, for a validator of pydantic's.

        Raises:
            ValueError: as `get` refuses it.
        """
        try:
            self.get(name)
        except UserError as error:
            raise ValueError(str(error)) from None
        return name

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in the order of registration."""
        while self._builtin:
            import_module(self._builtin.pop(0))
        return iter(self._values)

    def _import(self, module: str) -> None:
        here = os.getcwd()  # noqa: PTH109 (sys.path holds strings)
        if here not in sys.path:
            sys.path.append(here)
        try:
            import_module(module)
        except ImportError as error:
            raise UserError(
                f"the module {module!r} of a {self._what} can't be imported ({error}): install it, or work in "
                "its folder"
            ) from None
