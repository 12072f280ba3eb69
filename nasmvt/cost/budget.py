"""Bounds on the costs of a network."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil, floor

from nasmvt.cost.amounts import Amount, parse_budget, parse_gmacs, parse_latency, parse_sharing
from nasmvt.cost.costs import GMACS, LATENCY, PARAMETERS, Costs, beside
from nasmvt.cost.feasible import FeasibleSet
from nasmvt.cost.tables import Tables
from nasmvt.errors import UserError, check_task
from nasmvt.space.sharing import SharingRule


@dataclass(frozen=True)
class Budget:
    """Bounds on the networks of an arch. Shares of the largest network become numbers by `resolve`."""

    parameters: Amount | None = None
    """Upper bound on the total parameters of all task networks, heads included; None: no bound."""
    macs: Mapping[str, Amount] = field(default_factory=dict)
    """Upper bound on the multiply-accumulates of a task's network for one image of its size, by task."""
    sharing: SharingRule = "learned"
    """How parameters are counted: by the sharing that the scores give, or as if `all` or `none` of the adaptive layers
    were shared (see `Supernet.sharing`)."""
    at_least: Amount | None = None
    """Lower bound on the total parameters; None: no bound."""

    latency: Mapping[str, Amount] = field(default_factory=dict)
    """Upper bound on the microseconds of a call of a task's network, by task."""

    @classmethod
    def parse(
        cls,
        budget: str | None = None,
        at_least: str | None = None,
        max_gmacs: Iterable[str] = (),
        max_latency: Iterable[str] = (),
        sharing: str = "learned",
    ) -> "Budget":
        """Read bounds as users write them, see `nasmvt.cost.amounts`.

        Raises:
            UserError: if a text is of no such form.
        """
        least, most = parse_budget(budget, at_least)
        limits = parse_latency(max_latency)
        return cls(most, parse_gmacs(max_gmacs), parse_sharing(sharing), least, limits)

    def resolve(self, costs: Costs) -> "Budget":
        """Return the same bounds as numbers.

        Raises:
            UserError: if a bound names no task, or a latency is bounded that was not measured.
        """
        for quantity, limits in ((_WORK, self.macs), (_TIME, self.latency)):
            for task in limits:
                check_task(quantity.option, task, costs.tasks)
        macs = {task: _number(limit, costs.macs(task), floor) for task, limit in self.macs.items()}
        latency = {task: _number(limit, costs.latency(task), floor) for task, limit in self.latency.items()}
        most = None if self.parameters is None else _number(self.parameters, costs.totals, floor)
        least = None if self.at_least is None else _number(self.at_least, costs.totals, ceil)
        return replace(self, parameters=most, macs=macs, latency=latency, at_least=least)

    def feasible(self, costs: Costs) -> FeasibleSet:
        """Return the archs within the bounds.

        Raises:
            UserError: if there are none, naming what the space needs; or if a bound names no task.
        """
        space, bounds = costs.space, self.resolve(costs)._bounds
        if not bounds:
            return FeasibleSet.everything(space)
        tables = beside([bound.tables(costs) for bound in bounds])
        found = FeasibleSet(tables, [bound.most for bound in bounds], [bound.least for bound in bounds])
        for bound, least, most in zip(bounds, map(int, found.least_V), map(int, found.most_V), strict=True):
            bound.check(space.name, least, most)
        if not found.size:
            raise UserError(f"no network of {space.name} is within all of the bounds at once: widen one of them")
        return found

    def describe(self, found: FeasibleSet) -> list[str]:
        """Return sentences on how much of the space is within the bounds, and which bounds are not binding.

        Args:
            found: the archs within the bounds, as `feasible` returns them.
        """
        name, sentences = found.space.name, []
        limits = zip(found.floors_V, found.bounds_V, found.least_V, found.most_V, strict=True)
        for bound, (low, high, least, most) in zip(self._bounds, limits, strict=True):
            sentences.append(f"networks of {name} have {bound.text(least)} to {bound.text(most)} {bound.unit}")
            if bound.most is not None and high >= most:
                sentences.append(f"the bound of {high / bound.scale:,.15g} {bound.unit} does not bind")
            if bound.least is not None and low <= least:
                sentences.append(f"the bound of at least {low / bound.scale:,.15g} {bound.unit} does not bind")
        if self._bounds:
            few, all_ = (f"{n:,.0f}" if n < 1e9 else f"{n:.3g}" for n in (found.size, found.space.size))
            sentences.append(f"{few} of {all_} archs are within the budget")
        return sentences

    @property
    def _bounds(self) -> list["_Bound"]:
        """The bounds of a resolved budget."""
        least, most = (None if amount is None else int(amount) for amount in (self.at_least, self.parameters))
        parameters = [] if least is most is None else [_Bound(_SIZE, least, most)]
        work = [_Bound(_WORK, None, int(limit), task) for task, limit in self.macs.items()]
        return [*parameters, *work, *(_Bound(_TIME, None, int(limit), task) for task, limit in self.latency.items())]


@dataclass(frozen=True)
class _Quantity:
    """What may be bounded."""

    kind: str
    """The name of the cost (see `Costs.named`)."""
    option: str
    """Of the command line."""
    unit: str
    scale: int
    """What a number is divided by to be read in the unit."""


_SIZE = _Quantity(PARAMETERS, "--budget", "parameters in all", 1)
_WORK = _Quantity(GMACS, "--max-gmacs", "GMACs", 10**9)
_TIME = _Quantity(LATENCY, "--max-latency", "ms", 10**3)


@dataclass(frozen=True)
class _Bound:
    """Bounds on one number."""

    quantity: _Quantity
    least: int | None
    most: int | None
    task: str | None = None
    """The task whose work or time is bounded."""

    def tables(self, costs: Costs) -> Tables:
        """Return the tables of the number, a single column."""
        return costs.named(self.quantity.kind if self.task is None else f"{self.quantity.kind}:{self.task}")

    @property
    def scale(self) -> int:
        """What the number is divided by to be read."""
        return self.quantity.scale

    @property
    def unit(self) -> str:
        """What the number counts."""
        return self.quantity.unit if self.task is None else f"{self.quantity.unit} for {self.task}"

    def text(self, value: int) -> str:
        """Return a value of the number, to be read with the unit."""
        return f"{value:,}" if self.task is None else f"{value / self.scale:,.3f}"

    def check(self, space: str, least: int, most: int) -> None:
        """Refuse bounds that no network of a space meets.

        Args:
            space: its name.
            least: the number of the smallest network.
            most: of the largest one.
        """
        if self.least is not None and self.most is not None and self.least > self.most:
            raise UserError(f"no network has at least {self.least:,} and at most {self.most:,} {self.unit}: swap them")
        if self.least is not None and self.least > most:
            raise UserError(
                f"at least {self.least:,} parameters are more than the largest network of {space} has, {most:,} in "
                "total: lower the bound or give the space larger options"
            )
        if self.most is not None and self.most < least:
            raise UserError(self._below(space, self.most, least))

    def _below(self, space: str, limit: int, least: int) -> str:
        if self.task is None:
            return (
                f"a budget of {limit:,} parameters is below the smallest network of {space}, "
                f"{least:,} in total: raise --budget or give the space smaller options"
            )
        return (
            f"a limit of {limit / self.scale:g} {self.unit} is below the least that a network of {space} "
            f"needs, {least / self.scale:.6g}: raise {self.quantity.option} {self.task}=... or give the space smaller "
            "options"
        )


def _number(amount: Amount, tables: Tables, rounded: Callable[[Fraction], int]) -> int:
    """Return an amount as a number; a share is one of the largest cost in the tables, a single column."""
    if isinstance(amount, int):
        return amount
    return rounded(amount * int(FeasibleSet(tables, [None]).most_V[0]))
