"""`nasmvt evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from nasmvt.cli.common import (
    Changes,
    Device,
    Json,
    ModelArgument,
    Precision,
    Protocol,
    Runtime,
    model_folder,
    put_json,
    reports_errors,
    written,
)


@reports_errors
def evaluate(
    folder: ModelArgument = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON file for the metrics.", show_default="FOLDER/evaluation.json")
    ] = None,
    protocol: Protocol = None,
    changes: Changes = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    runtime: Runtime = "torch",
    json: Json = None,
) -> None:
    """Evaluate an exported model on the val splits of its tasks' data sets.

    \b
    Example:
      nasmvt evaluate my-model --set tasks.det.data.root=/data/coco
    """
    from nasmvt.cli.display import console, metrics_table, say
    from nasmvt.files import write_json
    from nasmvt.pipeline.serve import Served

    folder = model_folder(folder)
    served = Served.open(folder, runtime=runtime, device=device, precision=precision)
    found = served.evaluate(changes or (), protocol)
    console.print(metrics_table("on val", found.metrics))
    for name, config in found.configs.items():
        if config.data.root is not None:
            say(f"data of {name}: {config.data.root}")
    path = out or folder / "evaluation.json"
    put_json(json, found.to_dict())
    written(lambda: write_json(path, found.to_dict()), path, wanted=out is not None)
