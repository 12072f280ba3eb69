"""What an arch costs, and the bounds on it."""

from nasmvt.cost.budget import Budget, parse_count
from nasmvt.cost.parameters import ParameterCount, ParameterCounter

__all__ = ["Budget", "ParameterCount", "ParameterCounter", "parse_count"]
