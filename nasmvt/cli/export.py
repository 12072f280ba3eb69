"""`nasmvt export`."""

from pathlib import Path
from typing import Annotated

import typer

from nasmvt.cli.common import AcceptChangedData, AcceptUnfinished, RunArgument, quoted, reports_errors


@reports_errors
def export(
    run: RunArgument = None,
    arch: Annotated[str, typer.Option(help="Which model: best, or the name of another retrained arch.")] = "best",
    out: Annotated[Path | None, typer.Option(help="Folder to create.", show_default="RUN/export")] = None,
    accept_unfinished: AcceptUnfinished = False,
    accept_changed_data: AcceptChangedData = False,
) -> None:
    """Export a run's model as one folder: config.json, model.safetensors, model card.

    This is the retrained model if there is one, else the searched subnet with the supernet's weights.

    \b
    Example:
      nasmvt export runs/my-run --out my-model
    """
    import json

    from nasmvt.cli.display import console, metrics_table, parameters_table, say
    from nasmvt.pipeline.export import export as write
    from nasmvt.pipeline.run import Run

    folder = write(
        Run.open(run),
        name=arch,
        out=out,
        accept_unfinished=accept_unfinished,
        accept_changed_data=accept_changed_data,
    )
    config = json.loads((folder / "config.json").read_text())
    metrics = {task: values for task, values in config["metrics"].items() if task != "split"}
    console.print(parameters_table(config["parameters"]))
    console.print(metrics_table("on the search split", metrics))
    say(f"exported: {folder}  (next: nasmvt evaluate {quoted(folder)})")
