"""Values of JSON files in their intended type, whatever type an exporter gave them."""

import math
from typing import Any


def whole(value: Any) -> int | None:
    """Return a whole number given as number or text, or None if it is not one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and (text := value.strip()).removeprefix("-").isdecimal() and text.isascii():
        return int(text) if len(text) < 20 else None
    return None


def identifier(value: Any) -> int | str | None:
    """Return an id: a whole number (also as text, unless it has leading zeros) or a text; None if it is neither."""
    number = whole(value)
    if number is not None and (not isinstance(value, str) or str(number) == value.strip()):
        return number
    return value if isinstance(value, str) and value else None


def flag(value: Any) -> bool | None:
    """Return yes or no, given as a number, a truth value, a text or nothing (no); None if it is neither."""
    if value is None:
        return False
    if isinstance(value, str):
        return {"0": False, "1": True, "false": False, "true": True, "": False}.get(value.strip().lower())
    return bool(value) if isinstance(value, (bool, int, float)) and value in (0, 1) else None


def number(value: Any) -> float | None:
    """Return a finite number given as number or text, or None if it is not one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def shown(value: Any) -> str:
    """Return a value for an error message, cut to a readable length."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
