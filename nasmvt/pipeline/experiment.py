"""One YAML file that defines everything: space, tasks, data, training, search."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator
from torch import nn

from nasmvt.config import Config, parse, read_yaml
from nasmvt.data.config import DataConfig
from nasmvt.data.formats import FORMATS
from nasmvt.errors import UserError
from nasmvt.resources import find
from nasmvt.search.config import SearchConfig
from nasmvt.space import SearchSpace, load_space
from nasmvt.space.task_choice import TaskChoice, flattened
from nasmvt.supernet.config import InitialConfig, SupernetConfig
from nasmvt.tasks.config import TaskConfig
from nasmvt.training.config import TrainingConfig
from nasmvt.yaml_text import dump_yaml, load_yaml

DEFAULT = "shapes"
"""The experiment that runs when none is named: the built-in data set and the nano space."""


def _absolute(path: str) -> str:
    return str(Path(os.path.expanduser(path)).resolve())  # noqa: PTH111 (it never raises)


def _absolute_roots(tasks: Any) -> Any:
    """Make data roots absolute, so that settings hold in any folder."""
    for task in tasks.values() if isinstance(tasks, dict) else ():
        data = task.get("data") if isinstance(task, dict) else None
        if not isinstance(data, dict):
            continue
        for key in ("root", "token_labels"):
            if isinstance(data.get(key), str):
                data[key] = _absolute(data[key])
    return tasks


def _check_names(tasks: dict[str, TaskConfig]) -> dict[str, TaskConfig]:
    if not tasks:
        raise ValueError("an experiment needs at least one task")
    for name in tasks:
        if not name.isidentifier() or name in {"shared", "split"} or hasattr(nn.ModuleDict(), name):
            raise ValueError(
                f"a task's name is a word of letters, digits and _ that means nothing to torch, and not 'shared' "
                f"or 'split', unlike {name!r}: name it otherwise"
            )
    return tasks


def _check_places(tasks: dict[str, TaskConfig]) -> dict[str, TaskConfig]:
    for name, task in tasks.items():
        if FORMATS.get(task.data.format).files and task.data.root is None:
            raise ValueError(
                f"the format '{task.data.format}' of the task '{name}' reads files: set root to the folder of the data "
                "set"
            )
    return tasks


Tasks = Annotated[
    dict[str, TaskConfig],
    BeforeValidator(_absolute_roots),
    AfterValidator(_check_names),
    AfterValidator(_check_places),
]
"""Tasks by name, with their data."""


class Experiment(Config):
    """The definition of a run."""

    name: str = Field(pattern=r"^[\w.-]+$")
    """Name of the experiment; part of its run directory's name."""
    space: SearchSpace
    """The search space: the name of a shipped one, a YAML file, or its content."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything random: splits, order, augmentation, archs, initial weights, search."""
    tasks: Tasks
    """The tasks by name, one or more."""
    supernet: SupernetConfig = SupernetConfig()
    """How the tasks share layers."""
    initial: InitialConfig | None = None
    """Weights that the supernet begins with; null: those that the seed gives."""
    training: TrainingConfig = TrainingConfig()
    """Training of the supernet."""
    search: SearchConfig = SearchConfig()
    """The search for the best arch."""
    retrain: TrainingConfig = TrainingConfig()
    """Training of the chosen arch, starting from the supernet's weights."""

    @field_validator("space", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return load_space(value) if isinstance(value, (str, Path)) else value

    @model_validator(mode="before")
    @classmethod
    def _own_choices(cls, values: Any) -> Any:
        """Add the choices of an experiment to its space: those of parts of its tasks, which no space's file knows."""
        if not isinstance(values, dict) or "choices" not in values:
            return values
        rest = {key: value for key, value in values.items() if key != "choices"}
        given, space = values["choices"], rest.get("space")
        if not isinstance(given, dict):
            raise ValueError(f"'choices' must hold keys of its own, but holds {given!r}")
        if isinstance(space, (str, Path)):
            space = load_space(space)
        content = space.model_dump(mode="json") if isinstance(space, SearchSpace) else space
        if not isinstance(content, dict) or not isinstance(content.get("choices"), dict):
            return rest  # which the space itself explains
        known = {**content["choices"], **flattened(given)}
        for name in known.keys() - content["choices"].keys():
            if TaskChoice.of(name) is None:
                raise ValueError(
                    f"an experiment's choices are those of parts of its tasks, called neck.TASK.SETTING or "
                    f"head.TASK.SETTING, unlike {name!r}: put it into the space's file"
                )
        return {**rest, "space": {**content, "choices": known}}

    @model_validator(mode="before")
    @classmethod
    def _absolute_initial(cls, values: Any) -> Any:
        """Make the path of initial weights absolute, so that a run works from any folder."""
        initial = values.get("initial") if isinstance(values, dict) else None
        if isinstance(initial, dict) and isinstance(initial.get("weights"), str) and initial["weights"] != "timm":
            initial["weights"] = _absolute(initial["weights"])
        return values

    @field_validator("training")
    @classmethod
    def _many_archs(cls, training: TrainingConfig) -> TrainingConfig:
        training.check_many_archs()
        return training

    @field_validator("retrain")
    @classmethod
    def _one_arch(cls, retrain: TrainingConfig) -> TrainingConfig:
        retrain.check_one_arch("a retraining")
        return retrain

    def data(self, task: str) -> DataConfig:
        """Return the data settings of a task."""
        return self.tasks[task].data

    def to_yaml(self) -> str:
        """Return the whole experiment, the space's content included, as YAML."""
        return dump_yaml(self.model_dump(mode="json"))


def load_experiment(name: str | Path | None = None, changes: Sequence[str] = (), seed: int | None = None) -> Experiment:
    """Load an experiment by the name of a shipped one or from a YAML file.

    A file may name others as its `base`, whose values it changes: mappings are merged, all else is replaced.

    Args:
        name: name or path; None: the built-in default.
        changes: settings such as "training.steps=100", each value read as YAML.
        seed: replaces the file's seed.

    Raises:
        UserError: if there is no such file, or a key or value breaks a rule.
    """
    path = find("experiments", name or DEFAULT)
    values = {"name": path.stem, **_inherited(path)}
    for change in changes:
        apply_change(values, change)
    if seed is not None:
        values["seed"] = seed
    return parse(Experiment, values, f"{path} and --set" if changes else str(path))


def _inherited(path: Path, heirs: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the values of an experiment's file: those of the experiments that it names as its `base`, and its own.

    Raises:
        UserError: if there is no such base, or a file is its own base.
    """
    own = read_yaml(path)
    bases = own.pop("base", [])
    names = bases if isinstance(bases, list) else [bases]
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: 'base' must be the name of an experiment, or a list of names, but is {bases!r}")
    if path.resolve() in heirs:
        raise UserError(f"{path} must not be its own base: remove it from 'base'")
    values: dict[str, Any] = {}
    for name in names:
        below = path.parent / name
        base = below if below.suffix and below.is_file() else find("experiments", name)
        values = _merged(values, _inherited(base, (*heirs, path.resolve())))
    return _merged(values, own)


def _merged(values: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return values with others in their place; mappings are merged key by key."""
    both = {key: _merged(values[key], own[key]) for key in values.keys() & own.keys() if _mappings(values, own, key)}
    return {**values, **own, **both}


def _mappings(values: dict[str, Any], own: dict[str, Any], key: str) -> bool:
    return isinstance(values[key], dict) and isinstance(own[key], dict)


def apply_change(values: dict[str, Any], change: str) -> None:
    """Set one dotted key in nested mappings: "training.steps=100".

    Raises:
        UserError: if the text is no `key=value`, or the key leads through something that is no mapping.
    """
    key, equals, text = change.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UserError(f"--set takes key=value such as training.steps=100, not {change!r}")
    value = load_yaml(text, f"--set {key}")
    for part in parts[:-1]:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise UserError(f"--set {key}: {part!r} holds {inner!r} and has no keys of its own")
        values = inner
    values[parts[-1]] = value
