"""One point of a search space."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Option = bool | int | float | str
Value = Option | tuple[Option, ...]


@dataclass(frozen=True)
class Arch(Mapping[str, Value]):
    """One option for every active choice; frozen, hashable, canonical.

    Created by `SearchSpace.arch`, `sample`, `mutate`, `crossover` or `decode`, never directly: only the
    space knows which choices are active. Acts like a mapping: `arch["embed_dim"]` is an option,
    `arch["num_heads"]` a tuple with one option per block.
    """

    genes: tuple[tuple[str, Value], ...]
    """Pairs of choice name and value, in the order of the space."""

    def __getitem__(self, name: str) -> Value:
        for key, value in self.genes:
            if key == name:
                return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self.genes)

    def __len__(self) -> int:
        return len(self.genes)

    def to_dict(self) -> dict[str, Option | list[Option]]:
        """Return plain values for JSON or YAML; `SearchSpace.arch` reads them back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in self.genes}

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that identify this arch; equal archs have equal ids."""
        return hashlib.sha256(json.dumps(self.to_dict()).encode()).hexdigest()[:12]

    def __str__(self) -> str:
        def text(value: Value) -> str:
            return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

        return " ".join(f"{key}={text(value)}" for key, value in self.genes)
