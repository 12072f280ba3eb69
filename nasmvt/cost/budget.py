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
        space = costs.space
        tables = [costs.totals] * (self.parameters is not None) + [costs.macs(task) for task in self.macs]
        if not tables:
            return FeasibleSet.everything(space)
        found = FeasibleSet(beside(tables), list(self._bounds.values()))
        for (what, bound), least in zip(self._bounds.items(), map(int, found.least_V), strict=True):
            if bound < least and what == "":
                raise UserError(
                    f"a budget of {bound:,} parameters is below the smallest network of {space.name}, "
                    f"{least:,} in total: raise --budget or give the space smaller options"
                )
            if bound < least:
                raise UserError(
                    f"a limit of {bound / 1e9:g} GMACs for {what} is below the least that a network of {space.name} "
                    f"needs, {least / 1e9:.6g}: raise --max-gmacs {what}=... or give the space smaller options"
                )
        if not found.size:
            raise UserError(f"no network of {space.name} is within all of the bounds at once: raise one of them")
        return found

    def describe(self, costs: Costs) -> list[str]:
        """Return sentences on how much of the space is within the bounds, and which bounds are not binding.

        Raises:
            UserError: as `feasible` does.
        """
        found, sentences = self.feasible(costs), []
        name = costs.space.name
        for (what, bound), least, most in zip(self._bounds.items(), found.least_V, found.most_V, strict=True):
            unit, scale = ("parameters in all", 1) if what == "" else (f"GMACs for {what}", 1e9)
            least_text, most_text = (f"{value / scale:,.3f}" if scale > 1 else f"{value:,}" for value in (least, most))
            sentences.append(f"networks of {name} have {least_text} to {most_text} {unit}")
            if bound >= most:
                sentences.append(f"the bound of {bound / scale:,.15g} {unit} does not bind")
        if self._bounds:
            few, all_ = (f"{n:,.0f}" if n < 1e9 else f"{n:.3g}" for n in (found.size, costs.space.size))
            sentences.append(f"{few} of {all_} archs are within the budget")
        return sentences

    @property
    def _bounds(self) -> dict[str, int]:
        """Every bound: "" names the one on parameters, a task that on its multiply-accumulates."""
        return {**({} if self.parameters is None else {"": self.parameters}), **self.macs}
