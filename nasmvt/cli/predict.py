"""`nasmvt predict`."""

from pathlib import Path
from typing import Annotated

import typer

from nasmvt.cli.common import Device, reports_errors


@reports_errors
def predict(
    folder: Annotated[Path, typer.Argument(help="Exported folder.")],
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    task: Annotated[
        list[str] | None, typer.Option(help="Task to run; may be repeated.", show_default="all tasks")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for drawn pictures and JSON.")] = Path("predictions"),
    device: Device = "auto",
) -> None:
    """Run an exported model on pictures: each one drawn with its prediction, and the prediction as JSON.

    Example: nasmvt predict my-model holiday/ --task det
    """
    from nasmvt.cli.display import console
    from nasmvt.export import load
    from nasmvt.pipeline.evaluate import find_pictures
    from nasmvt.pipeline.evaluate import predict as run
    from nasmvt.pipeline.run import device_of

    target = device_of(device)
    found = find_pictures(pictures)
    loaded = load(folder).to(target)
    drawn = list(run(loaded, task or loaded.tasks, found, out))
    console.print(f"{len(drawn)} predictions for {len(found)} pictures: {out}", highlight=False)
