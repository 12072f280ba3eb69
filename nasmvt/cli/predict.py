"""`nasmvt predict`."""

from pathlib import Path
from typing import Annotated

import typer

from nasmvt.cli.common import (
    Device,
    ModelArgument,
    Precision,
    Protocol,
    Runtime,
    model_folder,
    refuse_ignored,
    reports_errors,
)

_COUNT = 8
"""Images of each val split, where nothing else is said."""


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
    ] = _COUNT,
    out: Annotated[Path, typer.Option(help="Folder for annotated images and JSON.")] = Path("predictions"),
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Skip images that can't be decoded.")
    ] = False,
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Detected objects with a lower score are not drawn.")
    ] = 0.3,
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
    from nasmvt.pipeline.serve import Served

    if pictures:
        refuse_ignored("where images are given", {"--count": count != _COUNT})
    served = Served.open(model_folder(folder), runtime=runtime, device=device, precision=precision, tasks=task)
    drawn = served.predict(
        pictures or (),
        out,
        tasks=task,
        count=count,
        skip_unreadable=skip_unreadable,
        protocol=protocol,
        min_score=min_score,
    )
    say(f"{len(drawn)} images drawn: {out}")
