"""Which units of work take suspiciously long."""

import statistics
from collections import defaultdict

_TIMES = 10.0
"""A straggler takes so many times the median of its task."""
_KNOWN = 3
"""Durations of a task from which on its median counts."""


class Durations:
    """What the evaluations of each task took.

    Args:
        least: seconds below which none is a straggler, whatever the median.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, task: str, seconds: float) -> None:
        """Take in what an evaluation took."""
        self._seconds[task].append(seconds)

    def median(self, task: str) -> float:
        """Return the median of a task in seconds."""
        return statistics.median(self._seconds[task])

    def is_straggler(self, task: str, seconds: float) -> bool:
        """Return whether an evaluation that has run for so long takes ten times the median of its task."""
        known = len(self._seconds[task]) >= _KNOWN
        return known and seconds >= max(self._least, _TIMES * self.median(task))
