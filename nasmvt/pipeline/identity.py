"""The identity of a run's data: recorded when it begins, compared at every later step."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from nasmvt.config import Config
from nasmvt.data.config import DataConfig
from nasmvt.data.dataset import Split
from nasmvt.data.types import DataInfo
from nasmvt.errors import UserError, listed
from nasmvt.pipeline.datasets import TaskData

SPLITS: tuple[Split, ...] = ("train", "val")

_FREE = {"root", "workers", "skip_unreadable", "augmentation", "train", "test"}
"""Settings that may change between the steps of a run: they do not affect the identity of the data."""


class SplitRecord(Config):
    """The state of one split."""

    images: int
    digest: str


class TaskRecord(Config):
    """The state of one task's data. A run of nasmvt 0.1.0 only knows kind, classes and masks."""

    kind: str
    classes: tuple[str, ...]
    has_masks: bool = False
    things: int = 0
    category_ids: tuple[int, ...] = ()
    seed: int | None = None
    """Seed of the experiment; it divides the training split, among others."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The data settings that determine the images and the meaning of their labels."""
    splits: dict[Split, SplitRecord] = Field(default_factory=dict)

    @classmethod
    def of(cls, data: TaskData, splits: Sequence[Split]) -> "TaskRecord":
        """Return the current state of the data.

        Raises:
            UserError: if a split can't be opened.
        """
        opened = {split: data.open(split) for split in splits}
        identities = {split: dataset.identity() for split, dataset in opened.items()}
        return cls(
            **vars(data.train.info),
            seed=data.seed,
            settings=_settings(data.config.data),
            splits={split: SplitRecord(images=i.images, digest=i.digest) for split, i in identities.items()},
        )

    @property
    def info(self) -> DataInfo:
        """What a network needs to know."""
        return DataInfo(
            kind=self.kind,
            classes=self.classes,
            has_masks=self.has_masks,
            things=self.things,
            category_ids=self.category_ids,
        )

    def changes(self, now: "TaskRecord") -> list[str]:
        """Return the differences, in words; unknown values are not compared."""
        found = []
        if self.seed is not None and self.seed != now.seed:
            found.append(f"the seed was {self.seed} and is {now.seed}")
        for key in self.settings.keys() & now.settings.keys():
            if self.settings[key] != now.settings[key]:
                found.append(f"'data.{key}' was {self.settings[key]} and is {now.settings[key]}")
        for split in self.splits.keys() & now.splits.keys():
            before, after = self.splits[split], now.splits[split]
            if before.images != after.images:
                found.append(f"{split} had {before.images:,} images and has {after.images:,}")
            elif before.digest != after.digest:
                found.append(f"files of {split} have been renamed or have other contents")
        return sorted(found)

    def check_networks(self, task: str, now: "TaskRecord") -> None:
        """Refuse data that the networks of a run can't be used with.

        Raises:
            UserError: if kind, classes or masks differ.
        """
        if self.kind != now.kind:
            raise UserError(f"the task '{task}' began as {self.kind}, but is {now.kind} now: undo the change")
        if self.classes != now.classes:
            raise UserError(
                f"the networks of a run know the classes that it began with, but those of '{task}' changed: "
                f"{_difference(self.classes, now.classes)}; undo the change, or begin a new run"
            )
        if self.has_masks != now.has_masks:
            raise UserError(
                f"the networks of a run are for data with masks or without, but the objects of '{task}' "
                f"{'had' if self.has_masks else 'had no'} masks and {'have' if now.has_masks else 'have none'} now: "
                "undo the change, or begin a new run"
            )


def _settings(config: DataConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude=_FREE)


def _difference(before: Sequence[str], after: Sequence[str]) -> str:
    added = [name for name in after if name not in before]
    gone = [name for name in before if name not in after]
    parts = [f"{listed(names[:5])} {verb}" for names, verb in ((added, "came"), (gone, "went")) if names]
    return " and ".join(parts) or f"their order was {listed(before[:10])} and is {listed(after[:10])}"


def check_identity(records: Mapping[str, TaskRecord], now: Mapping[str, TaskRecord], accept: bool) -> list[str]:
    """Return what changed in the data of a run's tasks, in words.

    Args:
        records: their state when the run began.
        now: their current state.
        accept: whether they may have changed.

    Raises:
        UserError: if they changed and that is not accepted, or the classes differ.
    """
    found: list[str] = []
    for task, record in records.items():
        record.check_networks(task, now[task])
        found.extend(f"task '{task}': {change}" for change in record.changes(now[task]))
    if found and not accept:
        raise UserError(
            f"a run keeps the data that it began with, but they changed ({'; '.join(found)}): undo the change, or pass "
            "--accept-changed-data to continue with the current data, for which training and search images are "
            "divided anew, so that earlier metrics are not comparable"
        )
    return found
