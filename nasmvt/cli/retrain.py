"""`nasmvt retrain`."""

from typing import Annotated

import typer

from nasmvt.cli.common import AcceptChangedData, AcceptUnfinished, Device, RunArgument, quoted, reports_errors


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
) -> None:
    """Train the chosen arch further, as plain networks with tied tensors.

    \b
    Example:
      nasmvt retrain runs/my-run --arch best
    """
    from nasmvt.cli.display import say, training_progress
    from nasmvt.pipeline.retrain import choose_arch
    from nasmvt.pipeline.retrain import retrain as train
    from nasmvt.pipeline.run import Run, device_of
    from nasmvt.pipeline.supernet import load_supernet
    from nasmvt.training.processes import joined, restarted

    target = device_of(device)
    opened = Run.open(run)
    supernet = load_supernet(opened, target)
    chosen = choose_arch(opened, arch, supernet.sharing(), accept_unfinished=accept_unfinished)
    data = opened.open_data(accept_changed=accept_changed_data)
    begun = opened.folder("retrain", chosen.name).exists()
    with joined(target) as processes, training_progress(f"retrain {chosen.name}", processes.first) as listener:
        train(
            opened,
            chosen,
            supernet,
            data=data,
            device=target,
            from_scratch=from_scratch,
            resume=resume or (restarted() and begun),
            listener=listener,
            processes=processes,
        )
    if processes.first:
        say(f"retrained: {opened.folder('retrain', chosen.name)}  (next: nasmvt export {quoted(opened.path)})")
