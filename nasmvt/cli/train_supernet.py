"""`nasmvt train-supernet`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nasmvt.cli.common import (
    AcceptChangedData,
    Address,
    Changes,
    Device,
    ExperimentArgument,
    LeastWorkers,
    Seed,
    TrainingWorkers,
    quoted,
    reports_errors,
)


@reports_errors
def train_supernet(
    experiment: ExperimentArgument = None,
    out: Annotated[
        Path | None, typer.Option(help="Run directory to create.", show_default="runs/<time>-<experiment>")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the run in --out (default: the newest under runs/).")
    ] = False,
    changes: Changes = None,
    seed: Seed = None,
    accept_changed_data: AcceptChangedData = False,
    device: Device = "auto",
    workers: TrainingWorkers = 0,
    address: Address = None,
    min_workers: LeastWorkers = None,
) -> None:
    """Train the supernet of an experiment in a new run directory.

    \b
    Example:
      nasmvt train-supernet experiments/real_mini.yaml --set training.steps=2000
    """
    from nasmvt.cli.data_display import say_data, say_initial
    from nasmvt.cli.display import events, say, training_progress
    from nasmvt.errors import UserError
    from nasmvt.pipeline.experiment import load_experiment
    from nasmvt.pipeline.on_ray import SupernetWork, notes_of
    from nasmvt.pipeline.run import Run, device_of, free_path
    from nasmvt.pipeline.supernet import resume_supernet
    from nasmvt.pipeline.supernet import train_supernet as train_run
    from nasmvt.training.processes import joined, restarted
    from nasmvt.training.ray_workers import train_on_ray, wanted

    target = device_of(device)
    asked = wanted(workers, address, min_workers)
    if restarted() and out is not None and Run.is_at(out):  # what was given began this run
        resume, experiment, changes, seed = True, None, None, None
    if resume and (experiment or changes or seed is not None):
        raise UserError("--resume continues a run as it is: leave out the experiment, --set and --seed")
    if accept_changed_data and not resume:
        raise UserError("--accept-changed-data continues a run whose data changed: pass --resume too")
    settings = None if resume else load_experiment(experiment, changes or (), seed)
    if asked is not None:
        path = Run.open(out).path if settings is None else free_path(out, settings)
        work = SupernetWork(out=path.absolute(), experiment=settings, accept_changed_data=accept_changed_data)
        with training_progress("supernet") as listener:
            hear: dict[str, Any] = {"on_report": say_data, "on_initial": say_initial, **events(listener)}
            train_on_ray(work, asked, target.type, notes_of(path), hear)
        say(f"run directory: {path}  (next: nasmvt search {quoted(path)} --budget ...)")
        return
    with joined(target) as processes, training_progress("supernet", processes.first) as listener:
        shared: dict[str, Any] = {"device": target, "listener": listener, "processes": processes}
        if settings is None:
            run = Run.open(out)
            resume_supernet(run, accept_changed_data=accept_changed_data, **shared)
        else:
            run = train_run(settings, out=out, on_report=say_data, on_initial=say_initial, **shared)
    if processes.first:
        say(f"run directory: {run.path}  (next: nasmvt search {quoted(run.path)} --budget ...)")
