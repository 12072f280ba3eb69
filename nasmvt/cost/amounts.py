"""Bounds as users write them: 135M, 60%, 20M..25M, det=400, det=25ms."""

import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import get_args

from nasmvt.errors import UserError, listed, nearest
from nasmvt.space.sharing import SharingRule

Amount = int | Fraction
"""A number, or a share of what the largest network of a space has."""

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9}
_COUNT = re.compile(r"(\d[\d_,]*(?:\.\d+)?)\s*([KMBG]?)", re.IGNORECASE)
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|)")
_MICROSECONDS = {"us": 1, "ms": 10**3, "": 10**3, "s": 10**6}
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")


def parse_count(text: str) -> Amount:
    """Read a number of parameters: 135M, 1.2B, 500k, 86_300_000; or a share of the largest network's: 60%.

    Raises:
        UserError: if the text is neither, or not positive.
    """
    if share := _SHARE.fullmatch(text.strip()):
        amount = Fraction(share[1]) / 100
        if not 0 < amount <= 1:
            raise UserError(f"a share of the largest network lies above 0% and at most at 100%, not at {text.strip()}")
        return amount
    match = _COUNT.fullmatch(text.strip())
    number = Fraction(match[1].replace("_", "").replace(",", "")) * _UNITS[match[2].upper()] if match else Fraction(0)
    if number < 1:
        raise UserError(
            "a budget is a number of parameters such as 135M, 1.2B or 86_300_000, a share of the largest network such "
            f"as 60%, or a range of them such as 20M..25M, not {text!r}"
        )
    return int(number)


def parse_budget(text: str | None, at_least: str | None = None) -> tuple[Amount | None, Amount | None]:
    """Read bounds on parameters, the upper one or both: "25M", "60%", "20M..25M", "20M.."; return (lower, upper).

    Args:
        text: the bounds; None: none.
        at_least: the lower one by itself.

    Raises:
        UserError: if a text is of no such form, or the lower bound is given twice.
    """
    low, dots, high = text.partition("..") if text is not None else ("", "", "")
    if not dots:
        low, high = "", low
    if low and at_least is not None:
        raise UserError(f"the lower bound is given twice, by --budget {text} and --at-least {at_least}: give one")
    if text is not None and not (low or high):
        parse_count(text)
    low = low or at_least or ""
    return parse_count(low) if low else None, parse_count(high) if high else None


def parse_gmacs(texts: Iterable[str]) -> dict[str, Amount]:
    """Read limits on multiply-accumulates by task, in units of 10**9 or as shares: "det=400", "cls=0.5", "seg=60%".

    Raises:
        UserError: if a text is not of that form.
    """
    rule = "--max-gmacs takes task=number such as det=400, in 10^9 per image, or det=60%"
    return _by_task(texts, lambda number: int(Fraction(number) * 10**9), rule)


def parse_latency(texts: Iterable[str]) -> dict[str, Amount]:
    """Read limits on the time of a call by task, as microseconds or shares: "det=25ms", "cls=800us", "seg=60%".

    Raises:
        UserError: if a text is not of that form.
    """

    def microseconds(text: str) -> int:
        match = _TIME.fullmatch(text)
        if match is None or (found := int(Fraction(match[1]) * _MICROSECONDS[match[2]])) < 1:
            raise ValueError(text)
        return found

    return _by_task(texts, microseconds, "--max-latency takes task=time such as det=25ms, det=800us, or det=60%")


def _by_task(texts: Iterable[str], read: Callable[[str], int], rule: str) -> dict[str, Amount]:
    limits: dict[str, Amount] = {}
    for text in texts:
        task, _, number = (part.strip() for part in text.partition("="))
        try:
            limits[task] = parse_count(number) if _SHARE.fullmatch(number) else read(number)
        except (ValueError, ZeroDivisionError):
            raise UserError(f"{rule}, not {text!r}") from None
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
