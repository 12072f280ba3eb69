"""Exported folders of the formats 1 (nasmvt 0.1.0) and 2 (0.2.0, 0.3.0), converted to the current format."""

from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from nasmvt.config import Config, parse
from nasmvt.export.schema import Triple

_KEPT = ("format", "train_split", "val_split", "classes", "val_images", "limit")


class _Data(Config):
    model_config = ConfigDict(extra="allow")

    root: Path | None = None
    image_size: tuple[int, int]
    mean: Triple
    std: Triple


class _Config(Config):
    model_config = ConfigDict(extra="ignore")

    kind: str
    data: _Data
    head: dict[str, Any]
    eval_batch_size: int = 16


class _Info(Config):
    kind: str
    classes: tuple[str, ...]
    has_masks: bool = False


class _Task(Config):
    config: _Config
    data: _Info


class _Folder(Config):
    model_config = ConfigDict(extra="allow")

    tasks: dict[str, _Task]


def upgraded(content: dict[str, Any], source: str) -> tuple[dict[str, Any], dict[str, Path]]:
    """Return the content of a config.json of any format in the current one, and the data roots that it names.

    Raises:
        UserError: if it breaks a rule; names `source`.
    """
    if content.get("format") == 2:
        return _nested(content), {}
    if content.get("format") != 1:
        return content, {}
    tasks = parse(_Folder, content, source).tasks
    roots = {name: task.config.data.root for name, task in tasks.items() if task.config.data.root is not None}
    return {**content, "format": 3, "tasks": {name: _task(task) for name, task in tasks.items()}}, roots


def _nested(content: dict[str, Any]) -> dict[str, Any]:
    """Return a content of format 2 in format 3, which keeps a task's settings together under `config`."""
    tasks = content.get("tasks")
    if isinstance(tasks, dict):
        tasks = {name: _nested_task(task) if isinstance(task, dict) else task for name, task in tasks.items()}
    return {**content, "format": 3, "tasks": tasks}


def _nested_task(task: dict[str, Any]) -> dict[str, Any]:
    config = {key: task[key] for key in ("head", "eval_batch_size", "data") if key in task}
    return {**{key: value for key, value in task.items() if key not in config}, "config": config}


def _task(task: _Task) -> dict[str, Any]:
    config, data = task.config, task.config.data
    settings = data.model_dump(mode="json", exclude={"root", "image_size", "mean", "std"})
    # UPerNet had BatchNorm alone
    norms = {"norm": "batch"} if config.kind == "segmentation" else {}
    return {
        **task.data.model_dump(mode="json"),
        "preprocessing": {"canvas": data.image_size, "mean": data.mean, "std": data.std},
        "config": {
            "head": {**norms, **config.head},
            "eval_batch_size": config.eval_batch_size,
            "data": {key: settings[key] for key in _KEPT if key in settings},
        },
    }
