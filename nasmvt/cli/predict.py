"""`nasmvt predict`."""

from pathlib import Path
from typing import Annotated

import typer

from nasmvt.cli.common import Device, ModelArgument, Precision, Protocol, Runtime, model_folder, reports_errors


@reports_errors
def predict(
    folder: ModelArgument = None,
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="IMAGES",
            help="Images, or folders of images.",
            show_default="the first of each task's val split",
        ),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Task to run; may be repeated.", show_default="all tasks")
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, help="Number of images of each val split to use if no images are given.")
    ] = 8,
    out: Annotated[Path, typer.Option(help="Folder for annotated images and JSON.")] = Path("predictions"),
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Skip images that can't be decoded.")
    ] = False,
    protocol: Protocol = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    runtime: Runtime = "torch",
) -> None:
    """Run an exported model on images; write each image with its prediction drawn on it, and the prediction as JSON.

    \b
    Example:
      nasmvt predict my-model holiday/ --task det
    """
    from nasmvt.cli.display import say
    from nasmvt.export import load
    from nasmvt.pipeline.evaluate import data_configs
    from nasmvt.pipeline.inputs import find_pictures, val_pictures
    from nasmvt.pipeline.predict import predict as run
    from nasmvt.pipeline.run import device_of
    from nasmvt.tasks.precision import parse_precision

    target = device_of(device if runtime == "torch" else "cpu")
    numbers = parse_precision(precision, target)
    loaded = load(model_folder(folder), runtime, tasks=task).to(target)
    tasks = {name: loaded.task(name) for name in task or loaded.tasks}
    if pictures:
        found = find_pictures(pictures, out)
        chosen = dict.fromkeys(tasks, found)
    else:
        configs = data_configs(loaded, ())
        chosen = {name: val_pictures(configs[name], count, loaded.config["seed"]) for name in tasks}
    drawn = list(run(loaded, chosen, out, skip_unreadable=skip_unreadable, precision=numbers, protocol=protocol))
    say(f"{len(drawn)} images drawn: {out}")
