"""The base of every configuration class, and parsing of YAML files into them."""

import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from nasmvt.errors import UserError, listed, nearest
from nasmvt.text import read_text
from nasmvt.yaml_text import load_yaml

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


class Config(BaseModel):
    """A frozen, keyword-only component of the configuration; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_values_are_no_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where numbers are meant; Python takes them for 1 and 0."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        items = value if isinstance(value, (list, tuple)) else (value,)
        given = any(isinstance(item, bool) for item in items)
        if given and _mentions(annotation, (int, float)) and not _mentions(annotation, (bool, Any)):
            raise ValueError("it should be a number, not true or false")
        return value


C = TypeVar("C", bound=Config)


def images_for_batches(values: Any) -> Any:
    """Take `recalibration_batches` of files written for nasmvt 0.1.0, at 16 images a batch, as the defaults compare."""
    if not isinstance(values, dict) or "recalibration_batches" not in values or "recalibration_images" in values:
        return values
    batches = values["recalibration_batches"]
    rest = {key: value for key, value in values.items() if key != "recalibration_batches"}
    return {**rest, "recalibration_images": 16 * batches} if type(batches) is int else values


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


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds a mapping.

    Raises:
        UserError: if it can't be read, or is no such file.
    """
    try:
        values = json.loads(read_text(path))
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold JSON, a mapping: give another file, or make it anew")
    return values


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping in any usual encoding, see `load_yaml`.

    Raises:
        UserError: if the file is missing, is not YAML, or is not a mapping of words to values.
    """
    if not path.exists():
        raise UserError(f"there is no file {path}: check the path")
    values = load_yaml(read_text(path), str(path))
    if not isinstance(values, dict):
        held = "is empty" if values is None else f"holds {_cut(values)}"
        raise UserError(f"{path} must hold a mapping of keys to values, but {held}: write 'key: value' lines")
    return values


def _cut(value: Any) -> str:
    """Return a value as it stands in a sentence, cut to a readable length whatever it holds."""
    text = _SHORT.repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _sentence(model: type[BaseModel], error: ValidationError, values: Any, source: str) -> str:
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a typo explains what is missing
    where = ".".join(_written(values, first["loc"], missing=first["type"] == "missing"))
    if first["type"] == "extra_forbidden":
        fields = list(dict.fromkeys(name for parent in _models_at(model, first["loc"][:-1]) for name in parent))
        hint = nearest(first["loc"][-1], fields) or f"; known keys: {listed(fields)}"
        return f"unknown key '{where}' in {source}{hint}"
    if first["type"] == "missing":
        return f"the key '{where}' is missing in {source}: add it"
    given = first["input"]
    if first["type"] in {"model_type", "dict_type"}:
        held = "nothing" if given is None else _cut(given)
        return f"{f'the key {where!r} in {source}' if where else source} must hold keys of its own, but holds {held}"
    rule = first["msg"].removeprefix("Value error, ").replace("Input should", "it should", 1)
    if not where:
        return f"{source}: {rule}"
    if first["type"] in {"string_type", "path_type"} and isinstance(given, (bool, int, float)):
        rule += f", so write it in quotes: '{str(given).lower()}'"
    if first["type"] != "value_error" or not isinstance(given, (Mapping, BaseModel)):
        rule += f" (given: {_cut(given)})"
    return f"bad value for '{where}' in {source}: {rule}"


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


def _mentions(annotation: Any, types: tuple[Any, ...]) -> bool:
    """Return whether an annotation such as `list[int] | None` is or holds one of the types."""
    return annotation in types or any(_mentions(argument, types) for argument in get_args(annotation))


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
