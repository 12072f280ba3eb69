"""The result of a comparison of retrained archs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict

from nasmvt.config import Config
from nasmvt.cost import ParameterCount


@dataclass(frozen=True)
class Compared:
    """One arch of the comparison."""

    name: str
    parameters: ParameterCount
    metrics: Mapping[str, Mapping[str, float]]
    """On `val`, in percent."""
    score: float
    """T-score on `val`."""
    within_budget: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**vars(self), "parameters": self.parameters.to_dict()}


class Counted(Config):
    """A count of parameters in a file; its total is the sum of its parts."""

    model_config = ConfigDict(extra="ignore")

    shared: int
    specific: dict[str, int]
    heads: dict[str, int]


class ComparedRecord(Config):
    """One arch of a comparison in a file."""

    model_config = ConfigDict(extra="ignore")

    name: str
    parameters: Counted
    metrics: dict[str, dict[str, float]]
    score: float
    within_budget: bool

    def compared(self) -> Compared:
        """Return the original value."""
        return Compared(**{**dict(self), "parameters": ParameterCount(**dict(self.parameters))})
