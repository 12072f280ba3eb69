"""Which units of work take suspiciously long."""

import statistics
from collections import defaultdict

_TIMES = 10.0
"""A straggler takes so many times the median of its kind."""
_KNOWN = 3
"""Durations of a kind from which on its median counts."""


class Durations:
    """What the evaluations of each kind of unit took.

    Args:
        least: seconds below which none is a straggler, whatever the median.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, kind: str, seconds: float) -> None:
        """Take in what an evaluation took."""
        self._seconds[kind].append(seconds)

    def median(self, kind: str) -> float:
        """Return the median of a kind in seconds."""
        return statistics.median(self._seconds[kind])

    def is_straggler(self, kind: str, seconds: float) -> bool:
        """Return whether an evaluation that has run for so long takes ten times the median of its kind."""
        known = len(self._seconds[kind]) >= _KNOWN
        return known and seconds >= max(self._least, _TIMES * self.median(kind))
