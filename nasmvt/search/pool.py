"""Where evaluations run. A unit of work is one arch on one task."""

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch

from nasmvt.space import Arch

Evaluate = Callable[[Arch, str, int | None], dict[str, float]]
"""Returns the metrics of an arch on a task; given a rung of a race, the first metric on each block of its images."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A finished unit of work."""

    arch: Arch
    task: str
    metrics: dict[str, float]
    """Metrics of the task in percent."""
    rung: int | None = None
    """Of a race (see `nasmvt.search.race`); None: on all images."""
    seconds: float
    """Duration of the evaluation, without waiting."""
    starts: int = 1
    """How often it was started: again if its worker died, and if it took too long."""


class Pool(ABC):
    """Takes units of work and returns evaluations, in any order; a context manager that closes itself."""

    @property
    @abstractmethod
    def capacity(self) -> int:
        """Units that should be pending at a time, so that every worker is busy."""

    @property
    @abstractmethod
    def pending(self) -> int:
        """Units whose result was not fetched yet."""

    @abstractmethod
    def submit(self, arch: Arch, task: str, rung: int | None = None) -> None:
        """Submit a unit of work; with the number of a rung, only what that compares."""

    @abstractmethod
    def result(self) -> Evaluation:
        """Wait for a pending unit and return it.

        Raises:
            UserError: if an evaluation failed.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop all work and release all resources; further calls do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class InProcessPool(Pool):
    """Evaluates in this process, one unit at a time, when the result is fetched.

    Args:
        evaluate: returns the metrics.
        threads: torch threads meanwhile; None: unchanged. Sums are split differently for other numbers of
            threads, so metrics bitwise equal to a worker's need the same number.
    """

    def __init__(self, evaluate: Evaluate, threads: int | None = None) -> None:
        self._evaluate = evaluate
        self._threads = threads
        self._units: deque[tuple[Arch, str, int | None]] = deque()

    @property
    def capacity(self) -> int:
        """One: there is no concurrency."""
        return 1

    @property
    def pending(self) -> int:
        """Units not yet evaluated."""
        return len(self._units)

    def submit(self, arch: Arch, task: str, rung: int | None = None) -> None:
        """Submit a unit of work."""
        self._units.append((arch, task, rung))

    def result(self) -> Evaluation:
        """Evaluate the oldest unit; exceptions of the evaluator are not caught."""
        unit = self._units.popleft()
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads or before)
        try:
            return timed(self._evaluate, *unit)
        finally:
            torch.set_num_threads(before)

    def close(self) -> None:
        """Drop the units not yet evaluated."""
        self._units.clear()


def timed(evaluate: Evaluate, arch: Arch, task: str, rung: int | None) -> Evaluation:
    """Evaluate an arch on a task and measure the time."""
    start = time.perf_counter()
    metrics = {name: float(value) for name, value in evaluate(arch, task, rung).items()}
    return Evaluation(arch=arch, task=task, metrics=metrics, rung=rung, seconds=time.perf_counter() - start)
