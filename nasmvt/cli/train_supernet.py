"""`nasmvt train-supernet`."""

from pathlib import Path
from typing import Annotated

import typer

from nasmvt.cli.common import AcceptChangedData, Changes, Device, ExperimentArgument, Seed, quoted, reports_errors


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
) -> None:
    """Train the supernet of an experiment in a new run directory.

    \b
    Example:
      nasmvt train-supernet experiments/real_mini.yaml --set training.steps=2000
    """
    from nasmvt.cli.data_display import say_data, say_initial
    from nasmvt.cli.display import say, training_progress
    from nasmvt.errors import UserError
    from nasmvt.pipeline.experiment import load_experiment
    from nasmvt.pipeline.run import Run, device_of
    from nasmvt.pipeline.supernet import resume_supernet
    from nasmvt.pipeline.supernet import train_supernet as begin
    from nasmvt.training.processes import joined, restarted

    target = device_of(device)
    if restarted() and out is not None and Run.is_at(out):  # what was given began this run
        resume, experiment, changes, seed = True, None, None, None
    if resume:
        if experiment or changes or seed is not None:
            raise UserError("--resume continues a run as it is: leave out the experiment, --set and --seed")
        run = Run.open(out)
        with joined(target) as processes, training_progress("supernet", processes.first) as listener:
            resume_supernet(
                run,
                device=target,
                listener=listener,
                accept_changed_data=accept_changed_data,
                processes=processes,
            )
    else:
        if accept_changed_data:
            raise UserError("--accept-changed-data continues a run whose data changed: pass --resume too")
        settings = load_experiment(experiment, changes or (), seed)
        with joined(target) as processes, training_progress("supernet", processes.first) as listener:
            run = begin(
                settings,
                out=out,
                device=target,
                listener=listener,
                on_report=say_data,
                on_initial=say_initial,
                processes=processes,
            )
    if processes.first:
        say(f"run directory: {run.path}  (next: nasmvt search {quoted(run.path)} --budget ...)")
