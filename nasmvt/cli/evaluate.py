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
    from nasmvt.export import load
    from nasmvt.files import write_json
    from nasmvt.pipeline.evaluate import data_configs, data_of, evaluate_on_val
    from nasmvt.pipeline.run import device_of
    from nasmvt.tasks.precision import parse_precision

    target = device_of(device if runtime == "torch" else "cpu")
    numbers = parse_precision(precision, target)
    folder = model_folder(folder)
    loaded = load(folder, runtime)
    configs = data_configs(loaded, changes or (), protocol)
    metrics = evaluate_on_val(loaded.model, data_of(loaded, configs), target, numbers, loaded.networks)
    console.print(metrics_table("on val", metrics))
    for name, config in configs.items():
        if config.data.root is not None:
            say(f"data of {name}: {config.data.root}")
    path = out or folder / "evaluation.json"
    placed = {name: config.data.test.model_dump(mode="json") for name, config in configs.items()}
    content = {"split": "val", "metrics": metrics, "test": placed}
    put_json(json, content)
    written(lambda: write_json(path, content), path, wanted=out is not None)
