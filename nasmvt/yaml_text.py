"""YAML as people write it: numbers are what they look like, words stay words, and no key is lost.

PyYAML follows YAML 1.1, where `no` is false, `5e-4` a text, `1:30` the number 90 and `012` the number 10, and the last
of two equal keys wins. Here the core schema of YAML 1.2 holds: only `true` and `false` are truth values, and there are
no dates. Two things differ from it: digits may be grouped (`1_000`), and a whole number with leading zeros is a text
(`001`), which a setting that wants a number still takes.
"""

import os
import re
from typing import Any, ClassVar

import yaml

from nasmvt.errors import UserError

LARGEST = 1_000_000
"""Characters that a YAML text may have, and values that it may hold once its aliases are written out."""

_TAG = "tag:yaml.org,2002:"
_DIGITS = "[0-9]+(?:_[0-9]+)*"
_EXPONENT = "[eE][-+]?[0-9]+"
_PLAIN = {
    "null": ("~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": ("true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (f"[-+]?(?:0|(?!0){_DIGITS})|0x[0-9a-fA-F]+|0o[0-7]+", list("-+0123456789")),
    "float": (
        rf"[-+]?(?:(?:{_DIGITS}\.(?:{_DIGITS})?|\.{_DIGITS})(?:{_EXPONENT})?|{_DIGITS}{_EXPONENT})"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    "merge": ("<<", ["<"]),
}
"""By type: the plain scalars that are of it, and how they begin; all others are texts."""
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]
    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: build
        for tag, build in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.removeprefix(_TAG) in {"null", "bool", "float", "seq", "map"}
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping whose keys are words and differ."""
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(f"{self.name} has a key in line {line} that is no single word: write 'key: value'")
            if key.value in lines:
                raise UserError(
                    f"a key stands once in a mapping, but {self.name} has {key.value!r} in line {lines[key.value]} and "
                    f"in line {line}: rename or remove one"
                )
            lines[key.value] = line
        return node

    def text(self, node: yaml.ScalarNode) -> str:
        """Build a text; `${NAME}` and `${NAME:-default}` are replaced from the environment."""

        def value(match: re.Match[str]) -> str:
            found = os.environ.get(match[1], match[2])
            if found is None:
                raise UserError(
                    f"{self.name} uses the environment variable {match[1]} in line {node.start_mark.line + 1}, which "
                    "is not set: set it"
                )
            return found

        return _VARIABLE.sub(value, str(self.construct_scalar(node)))

    def whole(self, node: yaml.ScalarNode) -> int:
        """Build a whole number, decimal, 0x or 0o."""
        return int(str(self.construct_scalar(node)), 0)


class _Dumper(yaml.SafeDumper):
    """Quotes texts that YAML 1.1 or the table above would read as something else."""


_Loader.add_constructor(f"{_TAG}str", _Loader.text)
_Loader.add_constructor(f"{_TAG}int", _Loader.whole)
for _class in (_Loader, _Dumper):
    for _type, (_pattern, _beginnings) in _PLAIN.items():
        _class.add_implicit_resolver(_TAG + _type, re.compile(rf"(?:{_pattern})\Z"), _beginnings)


def load_yaml(text: str, source: str) -> Any:
    """Return what a YAML text holds: mappings, lists, texts, numbers, truth values and None.

    Args:
        text: one document.
        source: where it comes from (a file's path), named in errors.

    Raises:
        UserError: if it is not valid YAML, has a key twice, uses a variable that is not set, or is too large or too
            deep.
    """
    if len(text) > LARGEST:
        raise UserError(
            f"{source} must have {LARGEST:,} characters at most, but has {len(text):,}: is it the right one?"
        )
    try:
        loader = _Loader(text)
        loader.name = source
        value = loader.get_single_data()
        size = _written_out(value, {})
    except RecursionError:
        raise UserError(f"{source} nests values too deeply, or in themselves: make it flatter") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a whole number of thousands of digits
        raise UserError(f"{source} is not valid YAML ({' '.join(str(error).split())}): fix it") from None
    if size > LARGEST:
        raise UserError(f"{source} repeats parts by aliases {LARGEST:,} times and more: write out what is meant")
    return value


def dump_yaml(value: Any) -> str:
    """Return a value as YAML that `load_yaml` reads back; the order of keys is kept."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


def dump_yaml_line(value: Any) -> str:
    """Return a value as YAML in one line that `load_yaml` reads back."""
    text = yaml.dump([value], Dumper=_Dumper, sort_keys=False, default_flow_style=True, width=float("inf"))
    return text.strip()[1:-1]


def _written_out(value: Any, known: dict[int, int]) -> int:
    """Return how many values a value holds, shared ones counted each time; one that holds itself recurses for ever."""
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_written_out(part, known) for part in parts)
    return known[id(value)]
