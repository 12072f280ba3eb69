"""An evaluated arch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nasmvt.cost import ParameterCount
from nasmvt.cost.costs import GMACS, LATENCY
from nasmvt.space import Arch


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An arch with its costs and metrics."""

    arch: Arch
    """The subnet."""
    parameters: ParameterCount
    """Its parameters, by part."""
    metrics: Mapping[str, Mapping[str, float]]
    """Every metric on the search split, in percent, by task and name."""
    score: float
    """The T-score."""
    generation: int
    """Generation in which it was proposed, from 0."""
    macs: Mapping[str, int] = field(default_factory=dict)
    """Multiply-accumulates per image, of the tasks with a bound on them."""
    latency: Mapping[str, int] = field(default_factory=dict)
    """Microseconds of a call by the tables, of the tasks whose latency is bounded or minimized."""
    timed: Mapping[str, int] = field(default_factory=dict)
    """The same as they were measured, where they were."""

    @property
    def of_tasks(self) -> dict[str, Mapping[str, int]]:
        """The costs of tasks, by the kind of cost."""
        return {GMACS: self.macs, LATENCY: self.latency}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON or YAML."""
        return {
            "arch": self.arch.to_dict(),
            "parameters": self.parameters.to_dict(),
            "macs": dict(self.macs),
            **({"latency": dict(self.latency)} if self.latency else {}),
            "metrics": {task: dict(metrics) for task, metrics in self.metrics.items()},
            "score": self.score,
            "generation": self.generation,
        }
