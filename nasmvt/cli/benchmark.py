"""`nasmvt benchmark`."""

from pathlib import Path
from typing import Annotated

import typer

from nasmvt.cli.common import Changes, Json, ModelArgument, model_folder, put_json, refuse_ignored, reports_errors

_SECONDS = 3.0
"""How long each setting is measured, where nothing else is said."""


@reports_errors
def benchmark(
    folder: ModelArgument = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="What computes: torch, compiled, onnx, int8, pt2, aoti. May be repeated.", show_default="torch"
        ),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Task to measure; may be repeated.", show_default="all tasks")
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(min=1, help="Images per call. May be repeated.", show_default="1")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, help="Threads of an operator. May be repeated.", show_default="1")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to measure each setting.")] = _SECONDS,
    fps: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="IMAGES",
            help="Measure so many images of val one by one instead, predictions at their original size included, "
            "without the first five (LVT's protocol; its tool takes 200).",
            show_default="random images on the canvas",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON file for the table.", show_default="FOLDER/benchmark.json")
    ] = None,
    changes: Changes = None,
    json: Json = None,
) -> None:
    """Measure images per second, latency and memory of an exported model on the CPU.

    \b
    Example:
      nasmvt benchmark my-model --runtime torch --runtime onnx --threads 1
    """
    from dataclasses import asdict

    from nasmvt.cli.common import written
    from nasmvt.cli.display import console, speed_table
    from nasmvt.files import write_json
    from nasmvt.pipeline.benchmark import benchmark as measure

    if fps is None:
        refuse_ignored("without --fps", {"--set": changes})
    else:
        refuse_ignored("with --fps", {"--batch": batch, "--seconds": seconds != _SECONDS})
    folder = model_folder(folder)
    found = measure(
        folder,
        runtimes=runtime,
        tasks=task,
        batches=batch,
        threads=threads,
        seconds=seconds,
        fps=fps,
        changes=changes or (),
    )
    console.print(speed_table(found))
    path = out or folder / "benchmark.json"
    rows = [{**asdict(setting), **asdict(speed)} for setting, speed in found]
    content = {"protocol": "outputs" if fps is None else "fps", "rows": rows}
    put_json(json, content)
    written(lambda: write_json(path, content), path, wanted=out is not None)
