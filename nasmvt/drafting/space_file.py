"""The file of a drafted space: YAML with a remark on every choice, and what can't vary."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import yaml

from nasmvt.drafting.draft import Drafted

_WIDTH = 118
_NAMED = 3


def text_of(drafted: Drafted, versions: str) -> str:
    """Return the file's text.

    Args:
        drafted: the space.
        versions: the programs that drafted it, for the first line.
    """
    values = drafted.values
    smallest, published = drafted.parameters
    header = _comment(
        f"Drafted from timm's {values['fixed']['model']} by {versions}: {smallest / 1e6:.2f} to "
        f"{published / 1e6:.2f} M parameters without heads. Change options as you like, in ascending order; the last "
        "one is the published size. `units` says which dimensions of which tensors consist of the same units."
    )
    lines = [header, f"family: {values['family']}", "choices:"]
    for name, choice in values["choices"].items():
        lines.append(f"  {name}: {_flow(choice)}  # {drafted.notes[name]}")
    rest = {key: values[key] for key in ("fixed", "roles", "archs")}
    lines.append(yaml.safe_dump(rest, sort_keys=False, width=_WIDTH, default_flow_style=None).rstrip())
    if drafted.fixed:
        lines.append("# What does not vary, and why:")
        lines += [_comment(f"- {line}") for line in refusals(drafted.fixed)]
    return "\n".join(lines) + "\n"


def refusals(fixed: Mapping[str, Sequence[str]]) -> list[str]:
    """Return, for each reason, what can't vary for it."""
    found = []
    for reason, names in fixed.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        found.append(f"{reason}: {', '.join(names[:_NAMED])}{more}")
    return found


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.strip()


def _comment(text: str) -> str:
    return fill(text, width=_WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False)
