"""What candidates are compared by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nasmvt.cost import Costs, FeasibleSet
from nasmvt.cost.costs import GMACS, LATENCY, PARAMETERS
from nasmvt.cost.tables import Tables
from nasmvt.errors import UserError, listed, nearest
from nasmvt.search.candidate import Candidate
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
    """Name of the primary metric, by task."""

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


SCORE = "t-score"


@dataclass(frozen=True)
class Objectives:
    """What a search is after: figures that are to be high, costs that are to be low."""

    score: Objective
    """The T-score, also where it is no objective."""
    maximize: tuple[str, ...] = (SCORE,)
    """`t-score`, names of tasks, which stand for their first metrics, or `TASK:METRIC`."""
    minimize: tuple[str, ...] = ()
    """`parameters`, `gmacs:TASK`, or `latency:TASK`."""

    @classmethod
    def of(cls, tasks: Mapping[str, Task], maximize: Sequence[str], minimize: Sequence[str]) -> "Objectives":
        """Return the objectives of a search for some tasks."""
        return cls(Objective.of(tasks), tuple(maximize), tuple(minimize))

    def __post_init__(self) -> None:
        tasks = list(self.score.weights)
        for option, given, known in (
            ("--maximize", self.maximize, [SCORE, *tasks]),
            (
                "--minimize",
                self.minimize,
                [PARAMETERS, *(f"{kind}:{task}" for kind in (GMACS, LATENCY) for task in tasks)],
            ),
        ):
            for name in given:
                task, colon, _ = name.partition(":")
                figure = option == "--maximize" and colon and task in tasks  # its metric knows whether it has it
                if name not in known and not figure:
                    raise UserError(f"{option} takes one of {listed(known)}, not {name!r}{nearest(name, known)}")
                if given.count(name) > 1:
                    raise UserError(f"{option} names {name!r} twice: name an objective once")

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives in the order of their values."""
        return (*self.maximize, *self.minimize)

    @property
    def figures(self) -> dict[str, set[str]]:
        """The values of each task's metric that are needed."""
        needed = {task: {name} for task, name in self.score.primaries.items()}
        for task, name in (self._figure(name) for name in self.maximize if name != SCORE):
            needed[task].add(name)
        return needed

    @property
    def counted(self) -> tuple[str, ...]:
        """The tasks whose multiply-accumulates are needed."""
        return self._of_tasks(GMACS)

    @property
    def timed(self) -> tuple[str, ...]:
        """The tasks whose latencies are needed."""
        return self._of_tasks(LATENCY)

    def _of_tasks(self, kind: str) -> tuple[str, ...]:
        return tuple(name.removeprefix(f"{kind}:") for name in self.minimize if name.startswith(f"{kind}:"))

    def values(self, candidate: Candidate) -> tuple[float, ...]:
        """Return a candidate's value in each objective; higher is better, so costs are negative."""
        return tuple(
            [candidate.score if name == SCORE else self._metric(candidate, name) for name in self.maximize]
            + [-float(_cost(candidate, name)) for name in self.minimize]
        )

    def terms(self, candidate: Candidate) -> tuple[float, ...]:
        """Return what the first of a candidate's values is the sum of: for the T-score, a term of each task."""
        if self.maximize[0] != SCORE:
            return self.values(candidate)[:1]
        weights, primaries = self.score.weights, self.score.primaries
        return tuple(weight * candidate.metrics[task][primaries[task]] for task, weight in weights.items())

    def shares(self, candidates: Sequence[Candidate], costs: Costs) -> np.ndarray:
        """Return values (N, M) on a scale from 0 to 1, on which hypervolumes of one space compare.

        A metric of 100 % is 1, as is the cost of the space's cheapest network; that of its dearest one is 0.
        """
        values_NM = np.array([self.values(candidate) for candidate in candidates]).reshape(-1, len(self.names))
        whole = [100 * (sum(self.score.weights.values()) if name == SCORE else 1) for name in self.maximize]
        ends = [(0.0, float(most)) for most in whole] + [_ends(costs.named(name)) for name in self.minimize]
        least_M, most_M = np.array(ends).T
        return (values_NM - least_M) / np.maximum(most_M - least_M, 1)

    def _figure(self, name: str) -> tuple[str, str]:
        """Return the task and the value of its metric that a name stands for."""
        task, _, figure = name.partition(":")
        return task, figure or self.score.primaries[task]

    def _metric(self, candidate: Candidate, name: str) -> float:
        task, figure = self._figure(name)
        if figure not in candidate.metrics[task]:
            raise UserError(
                f"--maximize names '{name}', but the data or the head of '{task}' give only "
                f"{listed(candidate.metrics[task])}: name one of these"
            )
        return candidate.metrics[task][figure]


def _cost(candidate: Candidate, name: str) -> int:
    kind, _, task = name.partition(":")
    return candidate.parameters.total if kind == PARAMETERS else candidate.of_tasks[kind][task]


def _ends(tables: Tables) -> tuple[float, float]:
    """Return the negative costs of the dearest and of the cheapest arch."""
    every = FeasibleSet(tables, [None])
    return -float(every.most_V[0]), -float(every.least_V[0])
