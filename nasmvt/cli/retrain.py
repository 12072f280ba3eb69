"""`nasmvt retrain`."""

from typing import Annotated

import typer

from nasmvt.cli.common import (
    AcceptChangedData,
    AcceptUnfinished,
    Address,
    Device,
    LeastWorkers,
    RunArgument,
    TrainingWorkers,
    quoted,
    reports_errors,
)


@reports_errors
def retrain(
    run: RunArgument = None,
    arch: Annotated[
        str,
        typer.Option(help="best (the search's), smallest, largest, a named arch of the space, or a YAML file."),
    ] = "best",
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Start from fresh weights, not from the supernet's.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted retraining.")] = False,
    accept_unfinished: AcceptUnfinished = False,
    accept_changed_data: AcceptChangedData = False,
    device: Device = "auto",
    workers: TrainingWorkers = 0,
    address: Address = None,
    min_workers: LeastWorkers = None,
) -> None:
    """Train the chosen arch further, as plain networks with tied tensors.

    \b
    Example:
      nasmvt retrain runs/my-run --arch best
    """
    from nasmvt.cli.display import events, say, training_progress
    from nasmvt.pipeline.on_ray import RetrainWork, notes_of
    from nasmvt.pipeline.retrain import Retraining, check_folder
    from nasmvt.pipeline.run import Run, device_of
    from nasmvt.training.processes import joined, restarted
    from nasmvt.training.ray_workers import train_on_ray, wanted

    target = device_of(device)
    asked = wanted(workers, address, min_workers)
    opened = Run.open(run)
    work = Retraining.of(
        opened, arch, target, accept_unfinished=accept_unfinished, accept_changed_data=accept_changed_data
    )
    folder = work.folder
    title = f"retrain {work.chosen.name}"
    if asked is not None:
        check_folder(folder, folder.exists(), resume)
        options = {"from_scratch": from_scratch, "accept_changed_data": accept_changed_data}
        share = RetrainWork(run=opened.path.absolute(), chosen=work.chosen, **options)
        with training_progress(title) as listener:
            train_on_ray(share, asked, target.type, notes_of(opened.path), events(listener))
    else:
        resume = resume or (restarted() and folder.exists())
        with joined(target) as processes, training_progress(title, processes.first) as listener:
            work.train(from_scratch=from_scratch, resume=resume, listener=listener, processes=processes)
        if not processes.first:
            return
    say(f"retrained: {folder}  (next: nasmvt export {quoted(opened.path)})")
