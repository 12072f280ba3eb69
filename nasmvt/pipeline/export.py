"""From a run to an exported folder."""

from pathlib import Path

import torch

from nasmvt.errors import UserError
from nasmvt.export import save
from nasmvt.model import MultiTaskModel
from nasmvt.pipeline.datasets import TaskData
from nasmvt.pipeline.retrain import choose_arch, folder_of, load_retrained
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.supernet import load_supernet
from nasmvt.report.curves import read_metrics
from nasmvt.tasks.evaluate import evaluate
from nasmvt.tasks.recalibrate import recalibrate


def finished_model(run: Run, name: str | None = None) -> tuple[MultiTaskModel, dict[str, dict[str, float]]]:
    """Return a run's model and its metrics on the search split.

    Args:
        run: the run.
        name: a retrained arch; None: `best`, retrained if it was, else as the supernet has it.

    Raises:
        UserError: if the run has no such model.
    """
    name = name or "best"
    retrained = folder_of(run, name)
    folder = run.folder("retrain", retrained)
    if (folder / "checkpoint.pt").is_file():
        model = load_retrained(run, retrained)
        entries = read_metrics(folder / "metrics.jsonl")
        measured = [entry["metrics"][retrained] for entry in entries if "metrics" in entry]
        return model, measured[-1] if measured else {}
    if folder.exists():
        raise UserError(f"{folder} holds no checkpoint: finish 'nasmvt retrain --resume' first")
    return _from_supernet(run, name)


def _from_supernet(run: Run, name: str) -> tuple[MultiTaskModel, dict[str, dict[str, float]]]:
    """Return an arch with the supernet's weights and BatchNorm statistics of its own, as the search saw it."""
    device = torch.device("cpu")
    supernet = load_supernet(run, device)
    chosen = choose_arch(run, name, supernet.sharing())
    model = supernet.materialize(chosen.arch, chosen.sharing)
    metrics = {}
    for task, config in run.experiment.tasks.items():
        data = TaskData(task, config, run.experiment.seed)
        recalibrate(model.task(task), data.recalibration_images(run.experiment.search.recalibration_images), device)
        batches = data.search_images(run.experiment.search.images)
        metrics[task] = evaluate(model.task(task), batches, model.tasks[task], device)
    return model, metrics


def export(run: Run, *, name: str | None = None, out: Path | None = None) -> Path:
    """Write a run's model as a folder; return it.

    Raises:
        UserError: if the run has no such model, or the folder exists.
    """
    folder = out or run.folder("export")
    if folder.exists():
        raise UserError(f"{folder} exists: give another --out, or delete it")
    model, metrics = finished_model(run, name)
    save(model.eval(), folder, metrics=metrics, split="search", seed=run.experiment.seed)
    return folder
