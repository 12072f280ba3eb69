"""The runs in a folder, and how far each has come."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasmvt.errors import UserError
from nasmvt.pipeline.run import RUNS, Run


@dataclass(frozen=True)
class RunState:
    """How far a run has come."""

    path: Path
    space: str
    """Name of the space; empty if the run can't be opened."""
    stage: str
    """The last step that was done, or why the run can't be opened."""
    score: float | None = None
    """T-score of the searched arch on the search split."""
    parameters: int | None = None
    """Total parameters of the searched arch."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**vars(self), "path": str(self.path)}


def list_runs(folder: Path = RUNS) -> list[RunState]:
    """Return the runs below a folder, the newest last; one that can't be opened is listed with the reason.

    Raises:
        UserError: if there is none.
    """
    paths = sorted((path for path in folder.glob("*") if Run.is_at(path)), key=lambda path: path.stat().st_mtime)
    if not paths:
        raise UserError(f"there is no run under {folder}/: start with 'nasmvt train-supernet', or name another folder")
    return [_state(path) for path in paths]


def stage_of(run: Run) -> str:
    """Return the last step of the main job that a run has done."""
    if run.folder("export").is_dir():
        return "exported"
    if run.comparison_path.is_file():
        return "compared"
    if "best" in run.retrained_names():
        return _progress("retrained", run.metrics("retrain", "best"), run.experiment.retrain.steps)
    if run.best_path.is_file():
        return "searched" if run.best().complete else "search not complete"
    return _progress("supernet trained", run.metrics("supernet"), run.experiment.training.steps)


def _progress(done: str, entries: list[dict[str, Any]], steps: int) -> str:
    step = entries[-1]["step"] if entries else 0
    return done if step >= steps else f"{done.split()[0]}, step {step:,} of {steps:,}"


def _state(path: Path) -> RunState:
    try:
        run = Run.open(path)
        best = run.best() if run.best_path.is_file() else None
        stage = stage_of(run)
    except UserError as error:
        return RunState(path, "", f"can't be opened: {error}")
    if best is None or best.parameters is None:
        return RunState(path, run.experiment.space.name, stage)
    return RunState(path, run.experiment.space.name, stage, best.score, best.parameters.count.total)
