"""One task more for a finished model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from pydantic import Field, field_validator, model_validator

from nasmvt.config import Config, parse, read_yaml
from nasmvt.cost import ParameterCount, count_parameters
from nasmvt.errors import UserError, listed
from nasmvt.export import load, save
from nasmvt.export.folder import Metrics
from nasmvt.export.loading import LoadedModel
from nasmvt.files import write_text
from nasmvt.model import MultiTaskModel
from nasmvt.pipeline.data_report import TaskReport, check_report, report_data
from nasmvt.pipeline.datasets import TaskData, check_division
from nasmvt.pipeline.experiment import Tasks, apply_change
from nasmvt.pipeline.layout import TrainingFiles
from nasmvt.pipeline.stage import Stage
from nasmvt.search.packing import fingerprint
from nasmvt.seeding import derive_seed, seeded
from nasmvt.space.sharing import SharingRule
from nasmvt.supernet.added import AddedTask
from nasmvt.tasks.evaluate import evaluate
from nasmvt.tasks.task import Task
from nasmvt.text import read_text
from nasmvt.training.config import TrainingConfig
from nasmvt.training.loop import Listener
from nasmvt.yaml_text import dump_yaml


class Addition(Config):
    """What is added to a finished model, and how it is trained."""

    tasks: Tasks
    """The new task, by its name."""
    sharing: SharingRule = "learned"
    """Which adaptive layers of the model the new task shares: by scores of its own, `all`, or `none`."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """An adaptive layer is shared while its score, which begins here, is above this."""
    max_added: int | None = Field(default=None, ge=1)
    """Upper bound on the parameters that the new task adds; null: none. The first half of the steps learns the scores;
    then the layers of the highest scores are shared until the bound is met. With learned sharing only."""
    like: str | None = None
    """The task of the model whose tensors it begins with, where names and shapes fit; null: the backbone begins with
    the shared tensors and those of the first task, neck and head with fresh ones."""
    training: TrainingConfig = TrainingConfig()
    """Training of the new task."""

    @model_validator(mode="after")
    def _bound_needs_scores(self) -> Self:
        if self.max_added is not None and self.sharing != "learned":
            raise ValueError(
                f"'max_added' chooses the shared layers by their scores, but 'sharing' is {self.sharing!r}: remove one "
                "of the two"
            )
        return self

    @field_validator("training")
    @classmethod
    def _one_arch(cls, training: TrainingConfig) -> TrainingConfig:
        training.check_one_arch("a task that is added")
        return training

    @classmethod
    def read(cls, path: Path, changes: Sequence[str] = ()) -> "Addition":
        """Read a YAML file.

        Args:
            path: the file.
            changes: settings such as "training.steps=100".

        Raises:
            UserError: if it can't be read, breaks a rule, or names several tasks.
        """
        values = read_yaml(path)
        for change in changes:
            apply_change(values, change)
        found = parse(cls, values, f"{path} and --set" if changes else str(path))
        if len(found.tasks) != 1:
            raise UserError(f"one task is added at a time, but {path} names {listed(found.tasks)}: give each a file")
        return found


@dataclass(frozen=True)
class Added:
    """A model with one task more."""

    before: ParameterCount
    """The parameters of the model as it was."""
    after: ParameterCount
    """Those with the new task."""
    metrics: Mapping[str, float]
    """Of the new task, on its search split, in percent."""


def add_task(
    model: Path,
    addition: Addition,
    *,
    out: Path,
    device: torch.device,
    resume: bool = False,
    listener: Listener | None = None,
    on_report: Callable[[Mapping[str, TaskReport]], None] | None = None,
) -> Added:
    """Train a new task beside those of an exported model, whose tensors stay as they are, and export all of them.

    The training keeps its files in `<out>-training`.

    Args:
        model: the exported folder.
        addition: the new task and its training.
        out: the folder to write.
        device: where to train.
        resume: continue an interrupted training.
        listener: notified of every step.
        on_report: called with the report on the data, before anything is trained.

    Raises:
        UserError: if the model has a task of that name, the data break a rule, or a folder exists.
        Interrupted: after Ctrl-C, when a checkpoint is written.
    """
    if out.exists():
        raise UserError(f"{out} exists: give another --out, or delete it")
    loaded = load(model)
    base, seed = loaded.model, int(loaded.config["seed"])
    ((name, config),) = addition.tasks.items()
    folder = out.with_name(f"{out.name}-training")
    settings = folder / "addition.yaml"
    content = dump_yaml({"model": fingerprint(base.state_dict()), **addition.model_dump(mode="json")})
    _check_folder(settings, content, resume)
    data = {name: TaskData(name, config, seed)}
    check_division(data)
    task = Task(name=name, config=config, info=data[name].train.info)
    with seeded(seed, "added task", name):
        added = AddedTask(base, task, addition.sharing, addition.threshold, addition.like)
    if addition.max_added is not None:
        added.within(addition.max_added)  # refuses a bound that can't be met
    report = report_data(data)
    if on_report is not None:
        on_report(report)
    check_report(report)

    def train(one: AddedTask, files: TrainingFiles, config: TrainingConfig, begin: Callable[[], None]) -> None:
        stage = Stage(
            files=files,
            config=config,
            seed=derive_seed(seed, "added task", name),
            data=data,
            device=device,
            resume=resume and files.folder.exists(),
            listener=listener,
        )
        stage.run(one.to(device), begin)

    def begin() -> None:
        write_text(settings, content)

    schedule = addition.training
    if addition.max_added is not None:
        half = schedule.model_copy(update={"steps": max(schedule.steps // 2, 1)})
        train(added, TrainingFiles(folder / "scores"), half, begin)
        weights = added.network.state_dict()
        added = AddedTask(base, task, added.within(addition.max_added), addition.threshold)
        added.network.load_state_dict(weights)
        schedule = schedule.model_copy(update={"steps": max(schedule.steps - half.steps, 1)})
    train(added, TrainingFiles(folder / "task"), schedule, begin)
    whole = added.to("cpu").model().eval()
    split = loaded.config["metrics"]["split"]
    images = data[name].val_images() if split == "val" else data[name].search_images()
    metrics = evaluate(whole.task(name), images, task, "cpu")
    _export(loaded, whole, {name: metrics}, "val" if split == "val" else "search", out)
    before, after = (count_parameters(one.space, one.tasks, one.arch, one.sharing) for one in (base, whole))
    return Added(before, after, metrics)


def _check_folder(settings: Path, content: str, resume: bool) -> None:
    """Refuse to train over another training, or to continue one that is another's or was not begun."""
    folder = settings.parent
    if folder.exists() and not resume:
        raise UserError(f"{folder} exists: pass --resume to continue that training, or delete it")
    if resume and not settings.is_file():
        raise UserError(f"--resume continues a training, but there is no {settings}: leave --resume out")
    if resume and read_text(settings) != content:
        raise UserError(f"{settings} is of another model or other settings: give those, or delete {folder}")


def _export(loaded: LoadedModel, whole: MultiTaskModel, new: Metrics, split: str, out: Path) -> None:
    """Write the model with what is known of its old tasks."""
    for name, root in loaded.roots.items():  # so that the folder says where their data are
        task = whole.tasks[name]
        data = task.config.data.model_copy(update={"root": root})
        whole.tasks[name] = replace(task, config=task.config.model_copy(update={"data": data}))
    (name,) = new
    before = loaded.config.get("origin") or "Supernet training, search and retraining with nasmvt."
    origin = f"{before} The task {name} was added to the finished model, whose tensors were frozen."
    known = {task: loaded.config["metrics"][task] for task in loaded.tasks if task in loaded.config["metrics"]}
    save(whole, out, metrics={**known, **new}, split=split, seed=int(loaded.config["seed"]), origin=origin)
