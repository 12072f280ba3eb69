"""Which layers the tasks share."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Literal


class Role(StrEnum):
    """How a parameter is kept."""

    SPECIFIC = "specific"
    """One tensor per task."""
    ADAPTIVE = "adaptive"
    """Shared or specific, by the layer's score."""
    SHARED = "shared"
    """Always one tensor for all tasks."""


SharingRule = Literal["learned", "all", "none"]
"""Which adaptive layers are shared: according to their scores, all, or none."""


def layer_of(parameter: str) -> str:
    """Return the layer of a parameter: the module that owns it ("a.b.weight" -> "a.b")."""
    return parameter.rpartition(".")[0]


@dataclass(frozen=True)
class Roles:
    """Roles of layers by pattern.

    A pattern is a layer's full name in a task network; `*` stands for anything but a dot, `**` for
    anything: `backbone.blocks.*.fc1`, `backbone.**.norm1`. The last pattern that fits wins; without one a
    layer is specific.
    """

    patterns: tuple[tuple[str, Role], ...]

    @classmethod
    def of(cls, patterns: Mapping[str, Role | str]) -> "Roles":
        """Build roles from a mapping of pattern to role."""
        return cls(tuple((pattern, Role(role)) for pattern, role in patterns.items()))

    def __call__(self, layer: str) -> Role:
        """Return the role of a layer."""
        found = [role for pattern, role in self.patterns if fits(pattern, layer)]
        return found[-1] if found else Role.SPECIFIC


def fits(pattern: str, name: str) -> bool:
    """Return whether a name fits a pattern, of which `*` stands for anything but a dot and `**` for anything."""
    return _expression(pattern).fullmatch(name) is not None


@lru_cache
def _expression(pattern: str) -> re.Pattern[str]:
    parts = [".*" if part == "**" else r"[^.]*" if part == "*" else re.escape(part) for part in _STARS.split(pattern)]
    return re.compile("".join(parts))


_STARS = re.compile(r"(\*\*|\*)")


@dataclass(frozen=True)
class Sharing:
    """For every layer that can be shared, the tasks that use the shared tensors.

    A layer of role `shared` names all tasks that have it; an adaptive layer those whose score is
    above the threshold. A layer that is not named is specific.
    """

    layers: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def of(cls, layers: Mapping[str, Iterable[str]]) -> "Sharing":
        """Build a sharing from a mapping of layer to the tasks that share it."""
        return cls(tuple((layer, tuple(tasks)) for layer, tasks in sorted(layers.items())))

    def shared_by(self, task: str) -> frozenset[str]:
        """Return the layers of which a task uses the shared tensors."""
        return frozenset([layer for layer, tasks in self.layers if task in tasks])

    def to_dict(self) -> dict[str, list[str]]:
        """Return plain values for JSON or YAML; `of` reads them back."""
        return {layer: list(tasks) for layer, tasks in self.layers}

    def tasks(self, layer: str) -> tuple[str, ...]:
        """Return the tasks that use the shared tensors of a layer."""
        return self._index.get(layer, ())

    def of_layers(self, layers: Iterable[str]) -> "Sharing":
        """Return the part that concerns some layers, those of one arch for example."""
        known = set(layers)
        return Sharing(tuple(entry for entry in self.layers if entry[0] in known))

    @cached_property
    def _index(self) -> dict[str, tuple[str, ...]]:
        return dict(self.layers)
