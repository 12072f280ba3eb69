"""Evaluating a finished model on images it has never seen."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from nasmvt.config import parse
from nasmvt.data.eval_set import EvalSet
from nasmvt.data.formats import FORMATS
from nasmvt.data.protocols import FitProtocol, Protocol
from nasmvt.errors import UserError, listed, nearest
from nasmvt.export.loading import LoadedModel
from nasmvt.model import MultiTaskModel
from nasmvt.pipeline.datasets import TaskData
from nasmvt.pipeline.experiment import apply_change
from nasmvt.precision import Precision
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.evaluate import Resampled, evaluate, evaluate_resampled
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.task import Task


def evaluate_on_val(
    model: MultiTaskModel,
    data: Mapping[str, TaskData],
    device: torch.device,
    precision: Precision = "fp32",
    networks: Mapping[str, TaskNetwork] | None = None,
) -> dict[str, dict[str, float]]:
    """Return the metrics of every task on the `val` split of its data set, in percent.

    Args:
        model: the model.
        data: of its tasks.
        device: where the networks compute.
        precision: in which numbers they do.
        networks: what computes instead of the model's own networks, such as other runtimes.

    Raises:
        UserError: if a data set is missing or has other classes than the model.
    """
    images, tasks = _on_val(model, data, device)
    computing = networks or {name: model.task(name) for name in model.tasks}
    return {name: evaluate(computing[name], images[name], task, device, precision) for name, task in tasks.items()}


def resample_on_val(model: MultiTaskModel, data: Mapping[str, TaskData], device: torch.device) -> dict[str, Resampled]:
    """Return the metrics of every task on `val`, and how they depend on which images it has.

    Raises:
        UserError: as `evaluate_on_val` does.
    """
    images, tasks = _on_val(model, data, device)
    return {name: evaluate_resampled(model.task(name), images[name], task, device) for name, task in tasks.items()}


def _on_val(
    model: MultiTaskModel, data: Mapping[str, TaskData], device: torch.device
) -> tuple[dict[str, EvalSet], dict[str, Task]]:
    """Return the images of every task, and the tasks as these data are read; all of the data are opened at once."""
    model.to(device)
    images = {name: data[name].val_images() for name in model.tasks}
    return images, {name: replace(task, config=data[name].config) for name, task in model.tasks.items()}


def data_of(loaded: LoadedModel, configs: Mapping[str, TaskConfig]) -> dict[str, TaskData]:
    """Return the data to measure a loaded model on, not opened yet.

    Args:
        loaded: the model; it knows its classes, so the training splits are not read.
        configs: where they are (see `data_configs`).
    """
    seed = loaded.config["seed"]
    return {name: TaskData(name, configs[name], seed, task.info) for name, task in loaded.model.tasks.items()}


def data_configs(loaded: LoadedModel, changes: Sequence[str], protocol: str | None = None) -> dict[str, TaskConfig]:
    """Return the task settings of a loaded model with changes such as "tasks.det.data.root=/data/coco".

    Args:
        loaded: the model.
        changes: what is changed.
        protocol: how test images are placed: "fit", or "paper", as published figures of each kind were measured; None:
            as the model says it.

    Raises:
        UserError: if a change breaks a rule, or the location of a task's data is unknown.
    """
    tasks = {name: task.config.model_dump(mode="json") for name, task in loaded.model.tasks.items()}
    for name, root in loaded.roots.items():
        if name in tasks:
            tasks[name]["data"]["root"] = str(root)
    if protocol is not None:
        for name in tasks:
            tasks[name]["data"]["test"] = named_protocol(loaded.model.tasks[name], protocol).model_dump(mode="json")
    values = {"tasks": tasks}
    for change in changes:
        key = change.partition("=")[0]
        first, task, *rest = [*key.strip().split("."), ""]
        if first != "tasks" or task not in loaded.tasks or not rest:
            hint = nearest(task, loaded.tasks) if first == "tasks" else ""
            raise UserError(f"--set changes keys below tasks.<name> (tasks: {listed(loaded.tasks)}), not {key!r}{hint}")
        apply_change(values, change)
    configs = {name: parse(TaskConfig, config, f"--set tasks.{name}") for name, config in values["tasks"].items()}
    for name, config in configs.items():
        if config.data.root is None and FORMATS.get(config.data.format).files:
            raise UserError(
                f"an exported model does not record where the data of '{name}' are: pass --set "
                f"tasks.{name}.data.root=FOLDER"
            )
    return configs


def with_protocol(task: Task, name: str | None) -> Task:
    """Return a task whose images are placed by a protocol that is called by name; None: as the task says it.

    Raises:
        UserError: if the task's kind has no such protocol.
    """
    if name is None:
        return task
    data = task.config.data.model_copy(update={"test": named_protocol(task, name)})
    return replace(task, config=task.config.model_copy(update={"data": data}))


def named_protocol(task: Task, name: str) -> Protocol:
    """Return a protocol that is called by name.

    Raises:
        UserError: if the task's kind has no such protocol.
    """
    known = {"fit": FitProtocol(), "paper": task.kind.paper}
    protocol = known.get(name)
    if protocol is None:
        raise UserError(
            f"a protocol is one of {listed([key for key, value in known.items() if value])} for the task "
            f"'{task.name}', not {name!r}: name one of them, or set tasks.{task.name}.data.test"
        )
    return protocol
