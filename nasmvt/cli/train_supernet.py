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
    from nasmvt.pipeline.on_ray import SupernetWork, notes_of
    from nasmvt.pipeline.run import Run, device_of
    from nasmvt.pipeline.supernet import SupernetTraining
    from nasmvt.training.processes import joined, restarted
    from nasmvt.training.ray_workers import train_on_ray, wanted

    target = device_of(device)
    asked = wanted(workers, address, min_workers)
    if restarted() and out is not None and Run.is_at(out):  # what was given began this run
        resume, experiment, changes, seed = True, None, None, None
    training = SupernetTraining.of(
        experiment, out=out, resume=resume, changes=changes or (), seed=seed, accept_changed_data=accept_changed_data
    )
    hear: dict[str, Any] = {"on_report": say_data, "on_initial": say_initial}
    if asked is not None:
        work = SupernetWork.of(training)
        path = work.out
        with training_progress("supernet") as listener:
            train_on_ray(work, asked, target.type, notes_of(path), {**hear, **events(listener)})
    else:
        with joined(target) as processes, training_progress("supernet", processes.first) as listener:
            path = training.train(device=target, listener=listener, processes=processes, **hear).path
        if not processes.first:
            return
    say(f"run directory: {path}  (next: nasmvt search {quoted(path)} --budget ...)")
