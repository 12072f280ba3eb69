"""Checkpoints: one file, written whole, read without running code from it."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from nasmvt.errors import UserError, listed
from nasmvt.files import DAMAGED, atomic

FORMAT = 1

_STRUCTURE = ("family", "choices", "fixed", "roles")
"""What of a space the shapes of the weights depend on: neither its name nor its named archs."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of a training between two steps."""

    step: int
    """Steps done."""
    space: dict[str, Any]
    """The search space, as plain values."""
    tasks: dict[str, Any]
    """Kind, classes and input size of each task: what the shapes of the weights depend on."""
    weights: dict[str, torch.Tensor]
    """State dict of the supernet or model."""
    optimizer: dict[str, Any]
    """State dict of the optimizer."""

    def save(self, path: Path) -> None:
        """Write the checkpoint to `path`, whole or not at all."""
        with atomic(path) as temporary:
            torch.save({"format": FORMAT, **vars(self)}, temporary)

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read a checkpoint; tensors come to the CPU.

        Raises:
            UserError: if there is none, if it is damaged, or if it has another format.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise UserError(f"there is no checkpoint {path}: train first, or give another run directory") from None
        except DAMAGED:
            raise UserError(
                f"{path} is no readable checkpoint, but damaged, cut off or of another program: put a copy in its "
                "place, or give another run directory"
            ) from None
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise UserError(f"{path} is no checkpoint of format {FORMAT}: train again with this version of nasmvt")
        if content.keys() != {field.name for field in fields(cls)}:
            raise UserError(f"{path} is no checkpoint of nasmvt, it holds {listed(content)}: give a run directory")
        return cls(**content)

    def check(self, path: Path, space: dict[str, Any], tasks: dict[str, Any]) -> None:
        """Refuse a checkpoint that was written for another space or other tasks.

        Raises:
            UserError: naming both spaces, or the task that differs.
        """
        for key in _STRUCTURE:
            if self.space[key] != space[key]:
                raise UserError(
                    f"{path} belongs to the space {self.space['name']!r}, which differs from {space['name']!r} of "
                    f"this run (see {key}): use the run's own checkpoint, or start a new run"
                )
        if self.tasks.keys() != tasks.keys():
            raise UserError(
                f"{path} was written for the tasks {listed(self.tasks)}, but this run has {listed(tasks)}: "
                "use the run's own checkpoint, or start a new run"
            )
        for name, signature in tasks.items():
            for key, value in signature.items():
                if self.tasks[name].get(key) != value:
                    raise UserError(
                        f"{path} was written for task {name!r} with {key} {self.tasks[name].get(key)}, but this run "
                        f"has {value}: use the run's own checkpoint, or start a new run"
                    )
