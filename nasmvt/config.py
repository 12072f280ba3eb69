"""The base of every configuration class, and the way from YAML to one of them."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from nasmvt.errors import UserError, listed, nearest

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


class Config(BaseModel):
    """A frozen, keyword-only component of the configuration; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


C = TypeVar("C", bound=Config)


def parse(model: type[C], values: Mapping[str, Any], source: str) -> C:
    """Build `model` from plain values.

    Args:
        model: the configuration class.
        values: what a YAML file or `--set` gave.
        source: where the values come from (a file's path), named in errors.

    Raises:
        UserError: on an unknown key (with the nearest valid one), a missing key or a bad value.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(_sentence(model, error, values, source)) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; `${NAME}` and `${NAME:-default}` are replaced from the environment.

    Raises:
        UserError: if the file is missing, is not YAML, or is not a mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}: check the path") from None
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): check the path") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}): store it as UTF-8") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-13-45
        detail = " ".join(str(error).split())
        raise UserError(f"{path} is not valid YAML ({detail}): fix the file") from None
    if not isinstance(values, dict):
        held = "is empty" if values is None else f"holds {str(values)[:60]!r}"
        raise UserError(f"{path} must hold a mapping of keys to values, but {held}: write 'key: value' lines")
    expanded: dict[str, Any] = _expand(values, str(path))
    return expanded


def _expand(value: Any, source: str) -> Any:
    if isinstance(value, dict):
        return {key: _expand(item, source) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, source) for item in value]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        name, default = match.groups()
        if name in os.environ:
            return os.environ[name]
        if default is None:
            raise UserError(f"{source} uses the environment variable {name}, which is not set: set it")
        return str(default)

    return _VARIABLE.sub(variable, value)


def _sentence(model: type[BaseModel], error: ValidationError, values: Any, source: str) -> str:
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a typo explains what is missing
    where = ".".join(_written(values, first["loc"], missing=first["type"] == "missing"))
    if first["type"] == "extra_forbidden":
        fields = list(dict.fromkeys(name for parent in _models_at(model, first["loc"][:-1]) for name in parent))
        hint = nearest(first["loc"][-1], fields) or f"; known keys: {listed(fields)}"
        return f"unknown key '{where}' in {source}{hint}"
    if first["type"] == "missing":
        return f"the key '{where}' is missing in {source}: add it"
    if first["type"] in {"model_type", "dict_type"}:
        given = "nothing" if first["input"] is None else repr(first["input"])
        return f"{f'the key {where!r} in {source}' if where else source} must hold keys of its own, but holds {given}"
    rule = first["msg"].removeprefix("Value error, ").replace("Input should", "it should", 1)
    if not where:
        return f"{source}: {rule}"
    if first["type"] == "value_error":
        return f"bad value for '{where}' in {source}: {rule}"
    return f"bad value for '{where}' in {source}: {rule} (given: {first['input']!r})"


def _written(values: Any, location: tuple[int | str, ...], missing: bool) -> list[str]:
    """Return a location as the user wrote it: pydantic puts tags of unions into it, which are no keys."""
    path = []
    for part in location:
        inner = dict(enumerate(values)) if isinstance(values, (list, tuple)) else values
        if isinstance(inner, Mapping) and part in inner:
            values = inner[part]
            path.append(str(part))
        elif missing and part == location[-1]:
            path.append(str(part))
    return path


def _models_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[Mapping[str, Any]]:
    """Return the fields of every model that may stand at a location."""
    models = [model]
    for part in location:
        fields = [candidate.model_fields[part] for candidate in models if part in candidate.model_fields]
        if fields:
            models = [found for field in fields for found in _models_in(field.annotation)]
        else:
            models = [candidate for candidate in models if _has_tag(candidate, part)] or models
    return [candidate.model_fields for candidate in models]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the models inside an annotation such as `dict[str, A | B]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation, *(found for kind in annotation.__subclasses__() for found in _models_in(kind))]
    return [found for argument in get_args(annotation) for found in _models_in(argument)]


def _has_tag(model: type[BaseModel], tag: object) -> bool:
    return any(
        get_origin(field.annotation) is Literal and tag in get_args(field.annotation)
        for field in model.model_fields.values()
    )
