"""Counting patterns: another way to keep and count the parameters of a space, a published one for example."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import Field

from nasmvt.config import Config, parse, read_yaml
from nasmvt.errors import UserError, nearest
from nasmvt.resources import find
from nasmvt.space.search_space import SearchSpace
from nasmvt.space.sharing import Role, fits, layer_of

FOLDER = "search_spaces/patterns"
"""Folder of the shipped patterns."""


class Pattern(Config):
    """Changes of a search space, for counting."""

    name: str
    """Name of the pattern; for a shipped one, the file's name without suffix."""
    roles: dict[str, Role] | None = None
    """Layer patterns and their roles, instead of the space's; null: the space's."""
    unsliced: tuple[str, ...] = ()
    """Patterns (as in `roles`) of the names of parameters that every network stores as large as the largest one."""
    fixed: dict[str, Any] = Field(default_factory=dict)
    """Sizes that differ from the space's fixed ones."""

    def apply(self, space: SearchSpace) -> SearchSpace:
        """Return the space with the pattern's roles and fixed sizes."""
        roles = space.roles if self.roles is None else self.roles
        return space.model_copy(update={"roles": roles, "fixed": {**space.fixed, **self.fixed}})

    def stores_unsliced(self, parameter: str) -> bool:
        """Return whether a parameter is stored as large as in the largest network."""
        return any(fits(pattern, parameter) for pattern in self.unsliced)

    def check(self, parameters: Collection[str]) -> None:
        """Refuse a pattern that no parameter of the networks fits.

        Raises:
            UserError: naming it.
        """
        layers = dict.fromkeys(map(layer_of, parameters))
        for key, patterns, names in (("roles", self.roles or {}, layers), ("unsliced", self.unsliced, parameters)):
            for pattern in patterns:
                if not any(fits(pattern, name) for name in names):
                    raise UserError(
                        f"every pattern of {self.name} must fit the networks, but {pattern!r} ({key}) fits nothing in "
                        f"them{nearest(pattern, names) or ': fix or remove it'}"
                    )


def load_pattern(name: str | Path) -> Pattern:
    """Load a pattern by the name of a shipped one, or from a YAML file.

    Raises:
        UserError: if there is no such pattern, or the file breaks a rule.
    """
    path = find(FOLDER, name)
    return parse(Pattern, {"name": path.stem, **read_yaml(path)}, str(path))
