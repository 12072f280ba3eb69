"""Costs of archs and bounds on them. Tables and feasible sets need no torch: it is imported on first use."""

from typing import TYPE_CHECKING

from nasmvt.lazy import importer

if TYPE_CHECKING:
    from nasmvt.cost.budget import Budget, parse_count, parse_gmacs, parse_sharing
    from nasmvt.cost.costs import Costs
    from nasmvt.cost.feasible import FeasibleSet
    from nasmvt.cost.macs import count_macs
    from nasmvt.cost.parameters import ParameterCount, count_parameters

_HOME = {
    "Budget": "budget",
    "Costs": "costs",
    "FeasibleSet": "feasible",
    "ParameterCount": "parameters",
    "count_macs": "macs",
    "count_parameters": "parameters",
    "parse_count": "budget",
    "parse_gmacs": "budget",
    "parse_sharing": "budget",
}

__all__ = [
    "Budget",
    "Costs",
    "FeasibleSet",
    "ParameterCount",
    "count_macs",
    "count_parameters",
    "parse_count",
    "parse_gmacs",
    "parse_sharing",
]

__getattr__ = importer(__name__, _HOME)
