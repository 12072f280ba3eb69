"""The result of a comparison of retrained archs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from pydantic import ConfigDict

from nasmvt.config import Config
from nasmvt.cost import ParameterCount
from nasmvt.search import Objective
from nasmvt.tasks.evaluate import Resampled
from nasmvt.tasks.jackknife import interval


@dataclass(frozen=True)
class Rating:
    """What one training of an arch reached on `val`."""

    metrics: Mapping[str, Mapping[str, float]]
    """In percent, by task."""
    score: float
    """T-score."""
    without: tuple[float, ...] = ()
    """T-scores without each group of images (see `nasmvt.tasks.jackknife`)."""

    @classmethod
    def of(cls, resampled: Mapping[str, Resampled], objective: Objective) -> "Rating":
        """Return the rating for the metrics of every task."""
        metrics = {task: found.metrics for task, found in resampled.items()}
        groups = zip(*(resampled[task].without for task in objective.primaries), strict=True)
        named = [zip(objective.primaries.items(), values, strict=True) for values in groups]
        without = [objective({task: {name: value} for (task, name), value in group}) for group in named]
        return cls(metrics, objective(metrics), tuple(without))


@dataclass(frozen=True)
class Difference:
    """How much higher the searched arch's T-score is, with a 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What it says about the searched arch: `better`, `worse` or `no difference seen`."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no difference seen"


@dataclass(frozen=True)
class Compared:
    """One arch of the comparison."""

    name: str
    parameters: ParameterCount
    metrics: Mapping[str, Mapping[str, float]]
    """On `val`, in percent; means over the training seeds."""
    score: float
    """T-score on `val`; the mean over the training seeds."""
    within_budget: bool
    ratings: tuple[Rating, ...] = ()
    """By training seed."""
    difference: Difference | None = None
    """To the searched arch; None for that itself."""

    @classmethod
    def of(cls, name: str, parameters: ParameterCount, within_budget: bool, ratings: Sequence[Rating]) -> "Compared":
        """Return an arch with what its trainings reached."""
        metrics = {
            task: {name: fmean(rating.metrics[task][name] for rating in ratings) for name in values}
            for task, values in ratings[0].metrics.items()
        }
        score = fmean(rating.score for rating in ratings)
        return cls(name, parameters, metrics, score, within_budget, tuple(ratings))

    def against(self, searched: "Compared") -> "Compared":
        """Return the same with its difference to the searched arch, which has as many ratings."""
        if self is searched:
            return self
        pairs = [*zip(searched.ratings, self.ratings, strict=True)]
        differences = [mine.score - other.score for mine, other in pairs]
        groups = zip(*([a - b for a, b in zip(m.without, o.without, strict=True)] for m, o in pairs), strict=True)
        return replace(self, difference=Difference(*interval(differences, [fmean(values) for values in groups])))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "parameters": self.parameters.to_dict()}


class Counted(Config):
    """A count of parameters in a file; its total is the sum of its parts."""

    model_config = ConfigDict(extra="ignore")

    shared: int
    specific: dict[str, int]
    heads: dict[str, int]

    @property
    def count(self) -> ParameterCount:
        """The original value."""
        return ParameterCount(**dict(self))


class ComparedRecord(Config):
    """One arch of a comparison in a file."""

    model_config = ConfigDict(extra="ignore")

    name: str
    parameters: Counted
    metrics: dict[str, dict[str, float]]
    score: float
    within_budget: bool
    ratings: tuple[Rating, ...] = ()
    difference: Difference | None = None

    def compared(self) -> Compared:
        """Return the original value."""
        return Compared(**{**dict(self), "parameters": self.parameters.count})
