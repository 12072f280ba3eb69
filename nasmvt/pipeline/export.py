"""From a run to an exported folder."""

from pathlib import Path

import torch

from nasmvt.errors import UserError
from nasmvt.export import save
from nasmvt.model import MultiTaskModel
from nasmvt.pipeline.archs import ArchFile, arch_path
from nasmvt.pipeline.datasets import placed
from nasmvt.pipeline.retrain import choose_arch, folder_of, load_retrained
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.supernet import load_supernet
from nasmvt.search.packing import fingerprint
from nasmvt.tasks.evaluate import evaluate
from nasmvt.tasks.recalibrate import recalibrate
from nasmvt.training.checkpoint import Checkpoints


def finished_model(
    run: Run, name: str | None = None, *, accept_unfinished: bool = False, accept_changed_data: bool = False
) -> tuple[MultiTaskModel, dict[str, dict[str, float]]]:
    """Return a run's model and its metrics on the search split.

    Args:
        run: the run.
        name: a retrained arch; None: `best`, retrained if it was, else with the supernet's weights.
        accept_unfinished: accept the result of an interrupted search.
        accept_changed_data: continue if the data changed since the run began.

    Raises:
        UserError: if the run has no such model, or search or data are not accepted.
    """
    name = name or "best"
    retrained = folder_of(run, name)
    files = run.retrain_files(retrained)
    if Checkpoints(files.checkpoint).exist():
        model = load_retrained(run, retrained)
        return model, run.figures(retrained)
    if files.folder.exists():
        raise UserError(f"{files.folder} holds no checkpoint: finish 'nasmvt retrain --resume' first")
    return _from_supernet(run, name, accept_unfinished, accept_changed_data)


def _from_supernet(
    run: Run, name: str, accept_unfinished: bool, accept_changed_data: bool
) -> tuple[MultiTaskModel, dict[str, dict[str, float]]]:
    """Return an arch with the supernet's weights and its own BatchNorm statistics, as in the search.

    The search's metrics are used if it evaluated this arch with these weights.
    """
    device = torch.device("cpu")
    supernet = load_supernet(run, device)
    chosen = choose_arch(run, name, supernet.sharing(), accept_unfinished=accept_unfinished)
    data = run.open_data(accept_changed=accept_changed_data)
    model = supernet.materialize(chosen.arch, chosen.sharing)
    data = placed(data, model.tasks)
    config = run.experiment.search
    for task, item in data.items():
        recalibrate(model.task(task), item.recalibration_images(config.recalibration_images), device)
    path = arch_path(name, run.best_path)
    if path is not None and name not in run.experiment.space.archs:
        searched = ArchFile.read(path)
        same = (searched.id, searched.weights) == (chosen.arch.id, fingerprint(supernet.state_dict()))
        if same and searched.metrics.keys() == model.tasks.keys():
            return model, searched.metrics
    metrics = {
        task: evaluate(model.task(task), item.search_images(config.images), model.tasks[task], device)
        for task, item in data.items()
    }
    return model, metrics


def export(
    run: Run,
    *,
    name: str | None = None,
    out: Path | None = None,
    accept_unfinished: bool = False,
    accept_changed_data: bool = False,
) -> Path:
    """Write a run's model as a folder; return it.

    Raises:
        UserError: if the run has no such model, search or data are not accepted (see `finished_model`), or the
            folder exists.
    """
    folder = out or run.folder("export")
    if folder.exists():
        raise UserError(f"{folder} exists: give another --out, or delete it")
    model, metrics = finished_model(
        run, name, accept_unfinished=accept_unfinished, accept_changed_data=accept_changed_data
    )
    save(model.eval(), folder, metrics=metrics, split="search", seed=run.experiment.seed)
    return folder
