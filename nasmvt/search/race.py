"""Races: the archs of a generation are compared on growing parts of the search split, and the hopeless are dropped.

The images are divided into blocks. On each, an arch has a score, and what two archs differ by is compared block by
block, so that what is hard for both cancels (as in F-Race, Birattari et al., GECCO 2002). The rungs are those of
successive halving (Jamieson and Talwalkar, AISTATS 2016), but how many go on is decided by confidence intervals.

Shapes: N archs, B blocks.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import t

from nasmvt.search.objective import Objective
from nasmvt.space import Arch

BLOCKS = 16
"""Blocks that the images are divided into."""
RUNGS = (range(3), range(3, 6))
"""The blocks of each rung; who is not dropped is evaluated on all images."""
CONFIDENCE = 0.9
"""Of the one-sided intervals."""


def blocks_of(rung: int) -> int:
    """Return how many blocks an arch was compared on after a rung."""
    return RUNGS[rung].stop


class Race:
    """What archs reached on blocks of images, and who is dropped for it. Who is depends on these figures alone.

    Args:
        score: of the tasks' first metrics.
        kept: the number of best archs that matter; the others are compared with the last of them.
    """

    def __init__(self, score: Objective, kept: int) -> None:
        self._score = score
        self._kept = kept
        self.rung = 0
        self.live: list[Arch] = []
        """The archs that race, in the order in which they were proposed."""
        self._values: dict[Arch, dict[str, list[float]]] = {}  # by arch and task: of each block
        self._finished: list[Arch] = []

    def enter(self, arch: Arch) -> None:
        """Take an arch into the first rung."""
        self.live.append(arch)
        self._values[arch] = {}

    def learn(self, arch: Arch, task: str, values: Sequence[float]) -> None:
        """Take in the first metric of a task on each block of the present rung."""
        self._values[arch].setdefault(task, []).extend(values)

    def end_rung(self) -> list[Arch]:
        """Begin the next rung, or the next race; return who is dropped. All figures of the rung must be known."""
        rivals = [*self.live, *self._finished]
        blocks = blocks_of(self.rung)
        scores_NB = np.array([self._scores(arch)[:blocks] for arch in rivals])
        hopeless = hopeless_of(scores_NB, self._kept)[: len(self.live)]
        dropped = [arch for arch, out in zip(self.live, hopeless, strict=True) if out]
        self.live = [arch for arch, out in zip(self.live, hopeless, strict=True) if not out]
        self.rung += 1
        return dropped

    def finish(self) -> list[Arch]:
        """End the race; return who is to be evaluated on all images. Later ones are compared with them, too."""
        finished, self.live, self.rung = self.live, [], 0
        self._finished += finished
        return finished

    @property
    def over(self) -> bool:
        """Whether the last rung has ended."""
        return self.rung == len(RUNGS)

    def partial(self, arch: Arch) -> dict[str, dict[str, float]]:
        """Return the means of the first metrics over the blocks that an arch was compared on, by task."""
        values, names = self._values[arch], self._score.primaries
        return {task: {names[task]: float(np.mean(values[task]))} for task in self._score.weights}

    def _scores(self, arch: Arch) -> np.ndarray:
        """Return the score of an arch on each block."""
        values = self._values[arch]
        weights: Mapping[str, float] = self._score.weights
        return sum((weight * np.nan_to_num(values[task]) for task, weight in weights.items()), np.zeros(()))


def hopeless_of(scores_NB: np.ndarray, kept: int, confidence: float = CONFIDENCE) -> np.ndarray:
    """Return which archs (N,) are worse than the last of the `kept` best ones, by an interval that excludes 0.

    The spread of a difference over the blocks is pooled over all archs, so that few blocks say how large it is.

    Args:
        scores_NB: score of every arch on every block.
        kept: number of best archs.
        confidence: of the one-sided intervals.
    """
    archs, blocks = scores_NB.shape
    if archs <= kept or blocks < 2:
        return np.zeros(archs, dtype=bool)
    last = np.argsort(-scores_NB.mean(1), kind="stable")[kept - 1]
    behind_NB = scores_NB[last] - scores_NB
    others_NB = np.delete(behind_NB, last, axis=0)
    deviation = np.sqrt(others_NB.var(axis=1, ddof=1).mean() / blocks)
    bound = t.ppf(confidence, (archs - 1) * (blocks - 1)) * deviation
    return np.asarray(behind_NB.mean(1) > bound)
