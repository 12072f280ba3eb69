"""Upper bounds on the costs of a network."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import get_args

from nasmvt.cost.costs import Costs, beside
from nasmvt.cost.feasible import FeasibleSet
from nasmvt.errors import UserError, listed, nearest
from nasmvt.space.sharing import SharingRule

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9}
_COUNT = re.compile(r"(\d[\d_,]*(?:\.\d+)?)\s*([KMBG]?)", re.IGNORECASE)


def parse_count(text: str) -> int:
    """Read a number of parameters: 135M, 1.2B, 500k, 86_300_000.

    Raises:
        UserError: if the text is no positive number.
    """
    match = _COUNT.fullmatch(text.strip())
    number = Fraction(match[1].replace("_", "").replace(",", "")) * _UNITS[match[2].upper()] if match else Fraction(0)
    if number < 1:
        raise UserError(f"a budget is a number of parameters such as 135M, 1.2B or 86_300_000, not {text!r}")
    return int(number)


def parse_gmacs(texts: Iterable[str]) -> dict[str, int]:
    """Read limits on multiply-accumulates by task, in units of 10**9: "det=400", "cls=0.5".

    Raises:
        UserError: if a text is not of that form.
    """
    limits = {}
    for text in texts:
        task, _, number = text.partition("=")
        try:
            limits[task.strip()] = int(Fraction(number.strip()) * 10**9)
        except (ValueError, ZeroDivisionError):
            raise UserError(f"--max-gmacs takes task=number such as det=400, in 10^9 per image, not {text!r}") from None
    return limits


def parse_sharing(text: str) -> SharingRule:
    """Read a rule of sharing.

    Raises:
        UserError: if there is no such rule.
    """
    rules = get_args(SharingRule)
    if text not in rules:
        raise UserError(f"--sharing must be one of {listed(rules)}, not {text!r}{nearest(text, rules)}")
    rule: SharingRule = rules[rules.index(text)]
    return rule


@dataclass(frozen=True)
class Budget:
    """Upper bounds on the networks of an arch."""

    parameters: int | None = None
    """Upper bound on the total parameters of all task networks, heads included; None: no bound."""
    macs: Mapping[str, int] = field(default_factory=dict)
    """Upper bound on the multiply-accumulates of a task's network for one image of its size, by task."""
    sharing: SharingRule = "learned"
    """How parameters are counted: by the sharing that the scores give, or as if `all` or `none` of the adaptive layers
    were shared (see `Supernet.sharing`)."""

    def feasible(self, costs: Costs) -> FeasibleSet:
        """Return the archs within the bounds.

        Raises:
            UserError: if there are none, naming the minimum that the space needs; or if a bound names no task.
        """
        for task in self.macs:
            if task not in costs.tasks:
                known = listed(costs.tasks)
                raise UserError(f"--max-gmacs names the task {task!r}, unknown{nearest(task, costs.tasks)} ({known})")
        space, bounds = costs.space, self._bounds
        if not bounds:
            return FeasibleSet.everything(space)
        tables = beside([costs.totals if bound.task is None else costs.macs(bound.task) for bound in bounds])
        found = FeasibleSet(tables, [bound.limit for bound in bounds])
        for bound, least in zip(bounds, map(int, found.least_V), strict=True):
            if bound.limit < least:
                raise UserError(bound.refusal(space.name, least))
        if not found.size:
            raise UserError(f"no network of {space.name} is within all of the bounds at once: raise one of them")
        return found

    def describe(self, found: FeasibleSet) -> list[str]:
        """Return sentences on how much of the space is within the bounds, and which bounds are not binding.

        Args:
            found: the archs within the bounds, as `feasible` returns them.
        """
        name, sentences = found.space.name, []
        for bound, least, most in zip(self._bounds, found.least_V, found.most_V, strict=True):
            sentences.append(f"networks of {name} have {bound.text(least)} to {bound.text(most)} {bound.unit}")
            if bound.limit >= most:
                sentences.append(f"the bound of {bound.limit / bound.scale:,.15g} {bound.unit} does not bind")
        if self._bounds:
            few, all_ = (f"{n:,.0f}" if n < 1e9 else f"{n:.3g}" for n in (found.size, found.space.size))
            sentences.append(f"{few} of {all_} archs are within the budget")
        return sentences

    @property
    def _bounds(self) -> list["_Bound"]:
        parameters = [] if self.parameters is None else [_Bound(self.parameters)]
        return [*parameters, *(_Bound(limit, task) for task, limit in self.macs.items())]


@dataclass(frozen=True)
class _Bound:
    """An upper bound on one number."""

    limit: int
    task: str | None = None
    """The task whose multiply-accumulates are bounded; None: the total parameters are."""

    @property
    def scale(self) -> int:
        """What the number is divided by to be read."""
        return 1 if self.task is None else 10**9

    @property
    def unit(self) -> str:
        """What the number counts."""
        return "parameters in all" if self.task is None else f"GMACs for {self.task}"

    def text(self, value: int) -> str:
        """Return a value of the number, to be read with the unit."""
        return f"{value:,}" if self.task is None else f"{value / self.scale:,.3f}"

    def refusal(self, space: str, least: int) -> str:
        """Return a sentence that says that the limit is below what every network of a space has."""
        if self.task is None:
            return (
                f"a budget of {self.limit:,} parameters is below the smallest network of {space}, "
                f"{least:,} in total: raise --budget or give the space smaller options"
            )
        return (
            f"a limit of {self.limit / 1e9:g} GMACs for {self.task} is below the least that a network of {space} "
            f"needs, {least / 1e9:.6g}: raise --max-gmacs {self.task}=... or give the space smaller options"
        )
