"""The subject of `nasmvt profile`: a space, a run or an exported model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from nasmvt.data import DataInfo
from nasmvt.data.formats import FORMATS
from nasmvt.data.opening import open_dataset
from nasmvt.errors import UserError, check_task, listed, nearest
from nasmvt.export.loading import read_config
from nasmvt.pipeline.archs import find_arch
from nasmvt.pipeline.experiment import Experiment, load_experiment
from nasmvt.pipeline.run import Run, make_tasks
from nasmvt.pipeline.supernet import build_supernet
from nasmvt.space import Arch, SearchSpace, Sharing
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.kinds import KINDS
from nasmvt.tasks.task import Task
from nasmvt.training.checkpoint import Checkpoints, signatures

EXPERIMENT = "vit_mvt"
"""The experiment whose tasks a space is profiled with when none is named."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An arch of a space, with the tasks that it serves."""

    kind: Literal["space", "run", "export"]
    """Its origin."""
    source: str
    """The space's name, or the folder."""
    space: SearchSpace
    tasks: Mapping[str, Task]
    arch_name: str
    """"published", "best", "largest" ..., or the file."""
    arch: Arch
    learned: Sharing | None
    """The layers that tasks share, if scores or a file tell."""


def find_subject(
    source: str,
    arch: str | None = None,
    *,
    experiment: str | None = None,
    classes: Sequence[str] = (),
    changes: Sequence[str] = (),
) -> Subject:
    """Return the subject.

    Args:
        source: a run directory, an exported folder, the name of a shipped space, or a space's file.
        arch: a named arch of the space, "smallest", "largest", "best" (of a run), or a YAML file. By default
            "published" of a space that has it, "best" of a run that was searched, the one of an export, else
            "largest".
        experiment: gives the tasks of a space; its data need not exist.
        classes: "task=number" for tasks of a space whose data are not available.
        changes: settings of that experiment such as "tasks.det.data.image_size=640".

    Raises:
        UserError: if there is no such thing, or an option does not apply.
    """
    path = Path(source)
    if not path.is_dir():
        if path.suffix not in {".yaml", ".yml"} and len(path.parts) > 1:
            there = [str(other) for other in path.parent.glob("*") if other.is_dir()]
            raise UserError(f"there is no folder {source}{nearest(source, there) or ': check the path'}")
        return _of_space(source, arch, experiment or EXPERIMENT, classes, changes)
    if experiment is not None or classes or changes:
        raise UserError(
            f"--experiment, --classes and --set give a space its tasks, but {source} is a folder that has its own: "
            "leave them out"
        )
    if Run.is_at(path):
        return _of_run(path, arch)
    if (path / "config.json").is_file():
        return _of_export(path, arch)
    raise UserError(
        f"{source} is neither a run (it has no config.yaml) nor an exported model (no config.json): give one of "
        "them, or a search space"
    )


def find_experiment(source: str, *, experiment: str | None = None, changes: Sequence[str] = ()) -> Experiment:
    """Return what would be trained: the experiment of a run, or one with another space; the arguments are as above.

    Raises:
        UserError: if there is no such thing, or an option does not apply.
    """
    path = Path(source)
    if not path.is_dir():
        return load_experiment(experiment or EXPERIMENT, [*changes, f"space={source}"])
    if experiment is not None or changes:
        raise UserError(f"--experiment and --set go with a space, but {source} is a folder: leave them out")
    if not Run.is_at(path):
        raise UserError(f"--memory is about a training, but {source} is no run: give a run, or a search space")
    return Run.open(path).experiment


# -- spaces ---------------------------------------------------------------------------------------


def _of_space(
    source: str, arch: str | None, experiment: str, classes: Sequence[str], changes: Sequence[str]
) -> Subject:
    for change in changes:
        if change.partition("=")[0].partition(".")[0].strip() == "space":
            raise UserError(
                f"the space that is profiled is {source}, so --set can't change it: edit a copy of its file"
            )
    settings = load_experiment(experiment, [*changes, f"space={source}"])
    space = settings.space
    counts = _class_counts(classes, settings.tasks)
    infos = {name: _info(config, counts.get(name), settings.seed) for name, config in settings.tasks.items()}
    chosen = arch or ("published" if "published" in space.archs else "largest")
    found, sharing = find_arch(space, chosen)
    sharers = dict.fromkeys(task for _, tasks in (sharing.layers if sharing else ()) for task in tasks)
    if not sharers.keys() <= infos.keys():
        raise UserError(
            f"{chosen} shares layers between the tasks {listed(sharers)}, but {settings.name} has {listed(infos)}: "
            "give the experiment that it comes from by --experiment"
        )
    return Subject(
        kind="space",
        source=source,
        space=space,
        tasks=make_tasks(settings, infos),
        arch_name=chosen,
        arch=found,
        learned=sharing,
    )


def _class_counts(given: Sequence[str], tasks: Mapping[str, Any]) -> dict[str, int]:
    """Read "task=number" pairs."""
    counts = {}
    for pair in given:
        name, _, text = pair.partition("=")
        if not text.isdecimal() or int(text) < 1:
            raise UserError(f"--classes takes TASK=N such as {next(iter(tasks))}=100, not {pair!r}")
        check_task("--classes", name, tasks)
        counts[name] = int(text)
    return counts


def _info(config: TaskConfig, count: int | None, seed: int) -> DataInfo:
    """Return what a network needs to know about a data set, without reading files."""
    if count is None and not FORMATS.get(config.data.format).files:
        return open_dataset(config.data, config.kind, "train", seed).info
    nominal = KINDS.get(config.kind).nominal
    if count is not None:
        return replace(nominal, classes=tuple(map(str, range(count))))
    return replace(nominal, classes=config.data.classes or nominal.classes)


# -- runs and exports -----------------------------------------------------------------------------


def _of_run(path: Path, arch: str | None) -> Subject:
    run = Run.open(path)
    searched = run.best_path if run.best_path.is_file() else None
    chosen = arch or ("best" if searched else "largest")
    found, sharing = find_arch(run.experiment.space, chosen, searched)
    return Subject(
        kind="run",
        source=str(path),
        space=run.experiment.space,
        tasks=run.tasks,
        arch_name=chosen,
        arch=found,
        learned=_scored_sharing(run) if sharing is None else sharing,
    )


def _scored_sharing(run: Run) -> Sharing | None:
    """Return the sharing by the scores of a run's checkpoint, or None if there is none; nothing else is built."""
    checkpoints = Checkpoints(run.supernet_files.checkpoint)
    if not checkpoints.exist():
        return None
    checkpoint = checkpoints.load()
    checkpoint.check(checkpoints.newest, run.experiment.space.model_dump(mode="json"), signatures(run.tasks))
    with torch.device("meta"):
        supernet = build_supernet(run.experiment, run.infos)
    scores = {name: tensor for name, tensor in checkpoint.weights.items() if name.startswith("scores.")}
    supernet.load_state_dict(scores, strict=False, assign=True)
    return supernet.sharing()


def _of_export(path: Path, arch: str | None) -> Subject:
    if arch is not None:
        raise UserError(f"{path} is an exported model, which holds one arch: leave out --arch, or profile its space")
    content = read_config(path)
    return Subject(
        kind="export",
        source=str(path),
        space=content.space,
        tasks=content.make_tasks(str(path / "config.json")),
        arch_name="exported",
        arch=content.space.arch(content.arch, str(path)),
        learned=Sharing.of(content.sharing),
    )
