"""`nasmvt add-task`."""

from pathlib import Path
from typing import Annotated

import typer

from nasmvt.cli.common import Changes, Device, Json, put_json, quoted, reports_errors


@reports_errors
def add_task(
    model: Annotated[Path, typer.Argument(metavar="FOLDER", help="Exported folder.")],
    addition: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file with the new task and its training.")],
    out: Annotated[Path, typer.Option(help="Folder of the model with the new task.")],
    changes: Changes = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted training.")] = False,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Add a task to an exported model: the old tasks' outputs stay the same, bit for bit.

    The new task is trained alone. What the old tasks share is frozen, and the new one uses it where its own scores say
    so.

    \b
    Example:
      nasmvt add-task my-model leaves.yaml --out my-model-4
    """
    from nasmvt.cli.data_display import say_data
    from nasmvt.cli.display import console, metrics_table, parameters_table, say, training_progress
    from nasmvt.pipeline.add_task import Addition
    from nasmvt.pipeline.add_task import add_task as add_to_model
    from nasmvt.pipeline.run import device_of

    settings = Addition.read(addition, changes or ())
    target = device_of(device)
    (name,) = settings.tasks
    with training_progress(f"add {name}") as listener:
        added = add_to_model(
            model, settings, out=out, device=target, resume=resume, listener=listener, on_report=say_data
        )
    console.print(metrics_table("on the search split", {name: added.metrics}))
    console.print(parameters_table(added.after.to_dict()))
    say(f"added parameters: {added.after.total - added.before.total:,}")
    put_json(json, {"metrics": {name: added.metrics}, "parameters": added.after.to_dict()})
    say(f"written: {out}  (next: nasmvt evaluate {quoted(out)})")
