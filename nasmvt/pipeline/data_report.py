"""The data of an experiment, looked at before anything is trained."""

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
"""Time that looking may take before a training."""


@dataclass(frozen=True, kw_only=True)
class TaskReport:
    """What the data set of one task holds."""

    train: SplitReport
    val: SplitReport | None
    """None: there is no validation split."""
    missing: str = ""
    """What is missing of it then."""

    @property
    def splits(self) -> dict[Split, SplitReport]:
        """The splits that there are, by name."""
        return {"train": self.train} if self.val is None else {"train": self.train, "val": self.val}

    def warnings(self) -> list[str]:
        """Return what may be wrong, one clause each."""
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
    """Look at the training and the validation images of every task.

    Args:
        data: the data sets by task.
        most: most images that are looked at of a split; None: all.
        seconds: time for all of them together, beyond opening the data sets; None: any.

    Raises:
        UserError: if val can't be opened or contradicts train, or labels that are looked at break a rule.
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
    """Refuse data that a later step would stop at.

    Raises:
        UserError: if an image that was looked at can't be read, and none are to be skipped.
    """
    for task in report.values():
        for split in task.splits.values():
            if split.refusal is not None:
                raise UserError(split.refusal)


class _Clock:
    """Divides time among a number of looks; what one leaves is for the next."""

    def __init__(self, seconds: float | None, looks: int) -> None:
        self._left = seconds
        self._looks = looks
        self._begun = 0.0

    def share(self) -> float | None:
        """Begin a look; return how long it may take."""
        self._begun = time.monotonic()
        return None if self._left is None else self._left / self._looks

    def stop(self) -> None:
        """End a look."""
        self._looks -= 1
        if self._left is not None:
            self._left = max(self._left - (time.monotonic() - self._begun), 0.0)
