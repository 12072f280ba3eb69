"""The one number that candidates are compared by."""

from collections.abc import Mapping
from dataclasses import dataclass

from nasmvt.errors import UserError
from nasmvt.tasks.task import Task


@dataclass(frozen=True)
class Objective:
    """The T-score: the weighted sum of the tasks' primary metrics in percent (top-1 + box mAP + mIoU).

    Raises:
        UserError: if no task has a weight above 0.
    """

    weights: Mapping[str, float]
    """Weight by task."""
    primaries: Mapping[str, str]
    """Name of the metric that counts, by task."""

    def __post_init__(self) -> None:
        if not any(weight > 0 for weight in self.weights.values()):
            raise UserError(
                f"a search needs a task with a score_weight above 0, but has {dict(self.weights)}: raise one"
            )

    @classmethod
    def of(cls, tasks: Mapping[str, Task]) -> "Objective":
        """Return the T-score of some tasks, by their weights and primary metrics."""
        return cls(
            {name: task.config.score_weight for name, task in tasks.items()},
            {name: task.primary for name, task in tasks.items()},
        )

    def __call__(self, metrics: Mapping[str, Mapping[str, float]]) -> float:
        """Return the score of a candidate's metrics by task."""
        return sum(weight * metrics[task][self.primaries[task]] for task, weight in self.weights.items())
