"""Costs of archs and bounds on them. Tables and feasible sets need no torch: it is imported on first use."""

from typing import TYPE_CHECKING

from nasmvt.lazy import lazy_names

if TYPE_CHECKING:
    from nasmvt.cost.amounts import parse_budget as parse_budget
    from nasmvt.cost.amounts import parse_count as parse_count
    from nasmvt.cost.amounts import parse_gmacs as parse_gmacs
    from nasmvt.cost.amounts import parse_latency as parse_latency
    from nasmvt.cost.amounts import parse_sharing as parse_sharing
    from nasmvt.cost.budget import Budget as Budget
    from nasmvt.cost.costs import Costs as Costs
    from nasmvt.cost.feasible import FeasibleSet as FeasibleSet
    from nasmvt.cost.latency_table import LatencyTable as LatencyTable
    from nasmvt.cost.macs import count_macs as count_macs
    from nasmvt.cost.parameters import ParameterCount as ParameterCount
    from nasmvt.cost.parameters import count_parameters as count_parameters

__getattr__, __all__ = lazy_names(__name__)
