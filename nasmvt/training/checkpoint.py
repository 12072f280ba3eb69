"""Checkpoints: written atomically, the last ones kept, read without running code from them."""

import logging
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from nasmvt.config import parse
from nasmvt.errors import UserError, listed
from nasmvt.files import DAMAGED, atomic
from nasmvt.tasks.heads import HEADS
from nasmvt.tasks.task import Task
from nasmvt.tasks.trainable import Trainable

_log = logging.getLogger(__name__)

FORMAT = 4
_WITHOUT_NAMES = 1
"""The format of nasmvt 0.1.0, whose optimizer state is by index; its weights are still read."""
_READ = (_WITHOUT_NAMES, 2, 3, FORMAT)
"""Formats 2 and 3, of nasmvt 0.2 and 0.3, lack what has a default."""

_STRUCTURE = ("family", "choices", "fixed", "roles")
"""The parts of a space that the shapes of the weights depend on: neither its name nor its named archs."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of a training between two steps."""

    step: int
    """Steps done."""
    space: dict[str, Any]
    """The search space, as plain values."""
    tasks: dict[str, Any]
    """Kind, classes and input size of each task: the shapes of the weights depend on them."""
    weights: dict[str, torch.Tensor]
    """State dict of the supernet or model."""
    optimizer: dict[str, Any] | None
    """State dict of the `NamedOptimizer`; None in a file of format 1."""
    update: dict[str, Any] = field(default_factory=dict)
    """State dict of the `Update`: what fp16 multiplies the losses by."""
    averaged: dict[str, torch.Tensor] = field(default_factory=dict)
    """Moving averages of the weights, where they are wanted: what is evaluated, searched and exported."""

    processes: int | None = None
    """How many processes drew archs of their own; None: all trained the same archs."""

    def save(self, path: Path) -> None:
        """Write the checkpoint to `path`, whole or not at all.

        Raises:
            UserError: if the disk is full or not writable.
        """
        try:
            with atomic(path) as temporary:
                torch.save({"format": FORMAT, **vars(self)}, temporary)
        except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError when the disk is full
            reason = getattr(error, "strerror", None) or "the disk is full or a file may not be that large"
            raise UserError(f"the checkpoint in {path.parent} can't be written ({reason}): free some space") from None

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read a checkpoint, with tensors on the CPU.

        Raises:
            UserError: if there is none, if it is damaged, or if it has another format.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise UserError(f"there is no checkpoint {path}: train first, or give another run directory") from None
        except DAMAGED:
            raise UserError(
                f"{path} is not a readable checkpoint, but damaged, truncated or of another program: put a copy in its "
                "place, or give another run directory"
            ) from None
        found = content.pop("format", None) if isinstance(content, dict) else None
        if found not in _READ:
            raise UserError(f"{path} is not a checkpoint of format {FORMAT}: train again with this version of nasmvt")
        required = {field.name for field in fields(cls) if field.default_factory is MISSING}
        if not required <= content.keys() <= {field.name for field in fields(cls)}:
            raise UserError(f"{path} is not a checkpoint of nasmvt, it holds {listed(content)}: give a run directory")
        return cls(**{**content, "optimizer": None if found == _WITHOUT_NAMES else content["optimizer"]})

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
            written = _with_defaults(self.tasks[name], path)
            for key, value in signature.items():
                if written.get(key) != value:
                    raise UserError(
                        f"{path} was written for task {name!r} with {key} {written.get(key)}, but this run "
                        f"has {value}: use the run's own checkpoint, or start a new run"
                    )

    def check_processes(self, path: Path, count: int | None) -> None:
        """Refuse to go on with archs per process where they were another number, which draws other archs.

        Args:
            path: of the checkpoint.
            count: number of processes that draw archs of their own now; None: they don't.

        Raises:
            UserError: naming both numbers.
        """
        if None not in (self.processes, count) and self.processes != count:
            raise UserError(
                f"with training.archs: per-process a training goes on with the same number of processes, but {path} "
                f"was written by {self.processes} and there {'is' if count == 1 else 'are'} {count}: start "
                f"{self.processes}"
            )


@dataclass(frozen=True)
class Checkpoints:
    """The last checkpoints of a training: `checkpoint.pt`, the one before `checkpoint.1.pt`, and so on."""

    newest: Path
    """The file of the newest; the others lie beside it, numbered by age."""
    keep: int = 2
    """Maximum number of checkpoints."""

    def exist(self) -> bool:
        """Return whether any exists."""
        return bool(self._present())

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint as the newest; a complete one exists at every moment.

        Raises:
            UserError: if it can't be written; the others are kept.
        """
        checkpoint.save(self._fresh)
        for age in range(self.keep - 1, 0, -1):
            if self._path(age - 1).is_file():
                self._path(age - 1).replace(self._path(age))
        self._fresh.replace(self.newest)
        for path in self._present()[self.keep :]:
            path.unlink()

    def load(self) -> Checkpoint:
        """Return the newest checkpoint, or, with a warning, the one before if that is damaged.

        Raises:
            UserError: if there is none, or none that can be read.
        """
        paths = self._present()
        if not paths:
            return Checkpoint.load(self.newest)
        for path, older in zip(paths, [*paths[1:], None], strict=True):
            try:
                return Checkpoint.load(path)
            except UserError as error:
                if older is None:
                    raise
                _log.warning("%s; the one before, %s, is taken instead", error, older)
        raise AssertionError("the last path either loads or raises")

    def _path(self, age: int) -> Path:
        return self._beside(str(age)) if age else self.newest

    @property
    def _fresh(self) -> Path:
        """Where a checkpoint is written before it becomes the newest."""
        return self._beside("new")

    def _beside(self, mark: str) -> Path:
        return self.newest.with_suffix(f".{mark}{self.newest.suffix}")

    def _present(self) -> list[Path]:
        """Return the checkpoints from the newest to the oldest; one that was about to become the newest is first."""
        older = self.newest.parent.glob(self._beside("[0-9]*").name)
        numbered = sorted(older, key=lambda path: int(path.suffixes[0][1:]))
        first = [path for path in (self._fresh, self.newest) if path.is_file()]
        return [*first, *numbered]


def load_weights(module: Trainable, checkpoints: Checkpoints, steps: int = 0, *, averaged: bool = True) -> Checkpoint:
    """Load the weights of a training's newest checkpoint into a supernet or model of the same space and tasks.

    Args:
        module: the supernet or model.
        checkpoints: of the training.
        steps: steps that the training must have done.
        averaged: whether moving averages are taken, where there are some; a resumed training takes the weights.

    Raises:
        UserError: if the checkpoint is missing, damaged, of another space, tasks or arch, or has too few steps.
    """
    checkpoint, path = checkpoints.load(), checkpoints.newest
    checkpoint.check(path, module.space.model_dump(mode="json"), signatures(module.tasks))
    if checkpoint.step < steps:
        raise UserError(
            f"{path} is of a training that ended at step {checkpoint.step} of {steps}: finish it with --resume first"
        )
    try:
        module.load_state_dict((averaged and checkpoint.averaged) or checkpoint.weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{path} does not fit this run ({reason}): use the run's own checkpoint") from None
    return checkpoint


def _with_defaults(signature: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the signature of a task as it would be written today: a setting that its head had not has its default."""
    head = signature["head"]
    return {**signature, "head": parse(HEADS.get(head["type"]).config, head, str(path)).model_dump(mode="json")}


def signatures(tasks: Mapping[str, Task]) -> dict[str, Any]:
    """Return, as plain values, what the shapes of the tasks' weights depend on."""
    return {
        name: {
            "kind": task.config.kind,
            "classes": list(task.info.classes),
            "image_size": list(task.config.data.image_size),
            "head": task.config.head.model_dump(mode="json"),
        }
        for name, task in tasks.items()
    }
