"""Training steps of the main job: the supernet, and the chosen arch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from nasmvt.config import read_yaml
from nasmvt.errors import UserError
from nasmvt.files import write_text
from nasmvt.model import MultiTaskModel
from nasmvt.pipeline.datasets import TaskData, infos_of, open_data
from nasmvt.pipeline.experiment import Experiment
from nasmvt.pipeline.pictures import save_batches, save_predictions
from nasmvt.pipeline.run import Run, new_path
from nasmvt.report.curves import plot_curves
from nasmvt.seeding import derive_seed, seeded
from nasmvt.space import Arch, Sharing
from nasmvt.supernet import Supernet
from nasmvt.tasks.evaluate import evaluate
from nasmvt.tasks.recalibrate import recalibrate
from nasmvt.training.config import TrainingConfig
from nasmvt.training.loop import Draw, Listener, Trainer, load_weights

Metrics = dict[str, dict[str, float]]


def train_supernet(
    experiment: Experiment,
    *,
    out: Path | None = None,
    device: torch.device,
    listener: Listener | None = None,
) -> Run:
    """Begin a run: check the data, make the run directory, train the supernet.

    Raises:
        UserError: if the data or the run directory breaks a rule; nothing is written then.
        Interrupted: after Ctrl-C, when a checkpoint is written.
    """
    new_path(out, experiment)
    data = open_data(experiment)
    infos = infos_of(data)
    supernet = build_supernet(experiment, infos)
    run = Run.create(out, experiment, infos)
    _train_supernet(run, supernet, data, device, listener, resume=False)
    return run


def resume_supernet(run: Run, *, device: torch.device, listener: Listener | None = None) -> None:
    """Go on with the training of a run's supernet, from its checkpoint or, without one, from the start."""
    data = open_data(run.experiment)
    supernet = build_supernet(run.experiment, run.infos)
    _train_supernet(run, supernet, data, device, listener, resume=True)


def build_supernet(experiment: Experiment, infos: Mapping[str, Any]) -> Supernet:
    """Build the supernet of an experiment with the weights that its seed gives."""
    from nasmvt.pipeline.run import make_tasks

    with seeded(experiment.seed, "initialisation"):
        return Supernet(experiment.space, make_tasks(experiment, dict(infos)), experiment.supernet)


def load_supernet(run: Run, device: torch.device) -> Supernet:
    """Return the trained supernet of a run.

    Raises:
        UserError: if it was not trained yet, or its checkpoint belongs to another space.
    """
    supernet = build_supernet(run.experiment, run.infos)
    load_weights(supernet, run.folder("supernet") / "checkpoint.pt")
    return supernet.to(device)


def _train_supernet(
    run: Run,
    supernet: Supernet,
    data: dict[str, TaskData],
    device: torch.device,
    listener: Listener | None,
    resume: bool,
) -> None:
    space, seed = run.experiment.space, run.experiment.seed
    supernet.to(device)
    fixed = space.sample(np.random.default_rng(derive_seed(seed, "fixed random subnet")))

    def draw(rng: np.random.Generator) -> tuple[Arch, Callable[[str], Any]]:
        arch = space.sample(rng)
        return arch, lambda task: supernet.subnet(arch, task)

    def probes() -> dict[str, MultiTaskModel]:
        archs = {"smallest": space.smallest, "random": fixed, "largest": space.largest}
        return {name: supernet.materialize(arch) for name, arch in archs.items()}

    _train(run.folder("supernet"), supernet, draw, probes, run.experiment.training, run, data, device, listener, resume)


@dataclass(frozen=True)
class Chosen:
    """An arch to be trained on, and how its tasks share layers."""

    name: str
    """Names the folder `retrain/<name>`."""
    arch: Arch
    sharing: Sharing


def choose_arch(run: Run, name: str, supernet: Supernet) -> Chosen:
    """Return the arch that a name means.

    Args:
        run: the run whose search or space is meant.
        name: "best" (the search's), "smallest", "largest", a named arch of the space, or a YAML file.
        supernet: gives the sharing where the file gives none.

    Raises:
        UserError: if there is no such arch, or the search has not found one yet.
    """
    space = run.experiment.space
    if name == "best" or Path(name).suffix in {".yaml", ".yml"}:
        path = run.folder("search") / "best.yaml" if name == "best" else Path(name)
        if name == "best" and not path.is_file():
            raise UserError(f"{run.path} holds no search result: run 'nasmvt search' first, or pass --arch")
        content = read_yaml(path)
        sharing = Sharing.of(content["sharing"]) if "sharing" in content else supernet.sharing()
        return Chosen(path.stem, space.arch(content.get("arch", content), str(path)), sharing)
    archs = {"smallest": space.smallest, "largest": space.largest}
    return Chosen(name, archs[name] if name in archs else space.named(name), supernet.sharing())


def retrain(
    run: Run,
    chosen: Chosen,
    supernet: Supernet,
    *,
    data: dict[str, TaskData],
    device: torch.device,
    from_scratch: bool = False,
    resume: bool = False,
    listener: Listener | None = None,
) -> MultiTaskModel:
    """Train an arch with its sharing as plain networks, from the supernet's weights or from scratch.

    Raises:
        UserError: if the arch was trained already and `resume` is off.
        Interrupted: after Ctrl-C, when a checkpoint is written.
    """
    folder = run.folder("retrain", chosen.name)
    if folder.exists() and not resume:
        raise UserError(f"{folder} exists: pass --resume to go on with it, or delete it")
    model = _start(run, chosen, supernet, from_scratch).to(device)
    arch = {"arch": chosen.arch.to_dict(), "sharing": model.sharing.to_dict()}
    write_text(folder / "arch.yaml", yaml.safe_dump(arch, sort_keys=False))

    def draw(rng: np.random.Generator) -> tuple[Arch, Callable[[str], Any]]:
        return chosen.arch, model.task

    _train(folder, model, draw, lambda: {chosen.name: model}, run.experiment.retrain, run, data, device, listener, resume)
    return model


def load_retrained(run: Run, name: str) -> MultiTaskModel:
    """Return a retrained model of a run.

    Raises:
        UserError: if it was not trained yet.
    """
    folder = run.folder("retrain", name)
    content = read_yaml(folder / "arch.yaml")
    arch = run.experiment.space.arch(content["arch"], str(folder / "arch.yaml"))
    model = MultiTaskModel.fresh(run.experiment.space, run.tasks, arch, Sharing.of(content["sharing"]))
    load_weights(model, folder / "checkpoint.pt")
    return model


def _start(run: Run, chosen: Chosen, supernet: Supernet, from_scratch: bool) -> MultiTaskModel:
    if not from_scratch:
        return supernet.materialize(chosen.arch, chosen.sharing)
    with seeded(run.experiment.seed, "from scratch"):
        return MultiTaskModel.fresh(run.experiment.space, run.tasks, chosen.arch, chosen.sharing)


def _train(
    folder: Path,
    module: Supernet | MultiTaskModel,
    draw: Draw,
    probes: Callable[[], dict[str, MultiTaskModel]],
    config: TrainingConfig,
    run: Run,
    data: dict[str, TaskData],
    device: torch.device,
    listener: Listener | None,
    resume: bool,
) -> None:
    """Train a module, evaluate its probes on the search split, and keep pictures and curves."""
    tasks = module.tasks
    loaders = {name: item.train_loader() for name, item in data.items()}
    search = {name: item.search_batches(config.evaluation_images) for name, item in data.items()}
    plain = {name: item.recalibration_batches(config.recalibration_batches) for name, item in data.items()}

    def evaluate_probes(step: int) -> dict[str, dict[str, Metrics]]:
        found: dict[str, dict[str, Any]] = {}
        for probe, model in probes().items():
            found[probe] = {}
            for name, task in tasks.items():
                network = model.task(name)
                if model is not module:  # a slice of the supernet: its BatchNorm statistics are everybody's
                    recalibrate(network, plain[name], device)
                found[probe][name] = evaluate(network, search[name], task, device)
            last = model
        for name, task in tasks.items():
            save_predictions(folder / "predictions" / f"{name}.png", last.task(name), search[name], task, device)
        return found

    trainer = Trainer(
        module, draw, loaders, config, seed=derive_seed(run.experiment.seed, folder.name), folder=folder, device=device,
        evaluate=evaluate_probes, listener=listener,
    )
    if resume and trainer.checkpoint_path.is_file():
        trainer.resume()
    save_batches(folder / "batches", {name: loader.batch(0) for name, loader in loaders.items()}, tasks)
    try:
        trainer.run()
    finally:
        plot_curves(folder, {name: task.primary for name, task in tasks.items()})
