"""The data of an experiment, examined before anything is trained."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nasmvt.data.dataset import Split
from nasmvt.data.folders import MissingSplit
from nasmvt.data.report import SplitReport
from nasmvt.data.survey import MOST, survey
from nasmvt.errors import UserError
from nasmvt.pipeline.datasets import TaskData

SECONDS = 4.0
"""Time limit of the examination before a training."""


@dataclass(frozen=True, kw_only=True)
class TaskReport:
    """The contents of one task's data set."""

    train: SplitReport
    val: SplitReport | None
    """None: there is no validation split."""
    missing: str = ""
    """What is missing then."""

    @property
    def splits(self) -> dict[Split, SplitReport]:
        """The existing splits, by name."""
        return {"train": self.train} if self.val is None else {"train": self.train, "val": self.val}

    def warnings(self) -> list[str]:
        """Return possible problems, one clause each."""
        found = [f"{name}: {warning}" for name, split in self.splits.items() for warning in split.warnings()]
        if self.val is None:
            found.append(f"val: {self.missing}; 'evaluate' and 'compare' need it")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        splits = {str(name): split.to_json() for name, split in self.splits.items()}
        return {**splits, "warnings": self.warnings()}


def report_data(
    data: Mapping[str, TaskData], *, most: int | None = MOST, seconds: float | None = SECONDS
) -> dict[str, TaskReport]:
    """Examine the training and the validation images of every task.

    Args:
        data: the data sets by task.
        most: maximum number of images examined per split; None: all.
        seconds: time limit for all of them together, without opening the data sets; None: no limit.

    Raises:
        UserError: if val can't be opened or contradicts train, or examined labels break a rule.
    """
    clock = _Clock(seconds, 2 * len(data))
    found = {}
    for name, item in data.items():
        tolerant = item.config.data.skip_unreadable
        train = survey(item.train, item.seed, tolerant=tolerant, most=most, seconds=clock.share())
        clock.stop()
        try:
            val = item.val
        except MissingSplit as error:
            found[name] = TaskReport(train=train, val=None, missing=str(error))
            continue
        looked = survey(val, item.seed, tolerant=tolerant, most=most, seconds=clock.share())
        clock.stop()
        found[name] = TaskReport(train=train, val=looked)
    return found


def check_report(report: Mapping[str, TaskReport]) -> None:
    """Refuse data that a later step would fail on.

    Raises:
        UserError: if an examined image can't be read and images may not be skipped.
    """
    for task in report.values():
        for split in task.splits.values():
            if split.refusal is not None:
                raise UserError(split.refusal)


class _Clock:
    """Divides time among a number of examinations; unused time is passed on."""

    def __init__(self, seconds: float | None, looks: int) -> None:
        self._left = seconds
        self._looks = looks
        self._begun = 0.0

    def share(self) -> float | None:
        """Begin an examination; return its time limit."""
        self._begun = time.monotonic()
        return None if self._left is None else self._left / self._looks

    def stop(self) -> None:
        """End an examination."""
        self._looks -= 1
        if self._left is not None:
            self._left = max(self._left - (time.monotonic() - self._begun), 0.0)
