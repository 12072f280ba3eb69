"""`nasmvt export`."""

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer

from nasmvt.cli.common import (
    AcceptChangedData,
    AcceptUnfinished,
    Changes,
    Json,
    put_json,
    quoted,
    reports_errors,
)
from nasmvt.errors import UserError


@reports_errors
def export(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN", help="Run directory, or an exported folder.", show_default="the newest under runs/"
        ),
    ] = None,
    arch: Annotated[str, typer.Option(help="Which model: best, or the name of another retrained arch.")] = "best",
    out: Annotated[Path | None, typer.Option(help="Folder to create.", show_default="RUN/export")] = None,
    accept_unfinished: AcceptUnfinished = False,
    accept_changed_data: AcceptChangedData = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write onnx/TASK.onnx too; needs the extra 'onnx'.")] = False,
    pt2: Annotated[bool, typer.Option("--pt2", help="Write pt2/TASK.pt2 too, programs of torch.export.")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Write int8/TASK.onnx too, quantised; needs the files of --onnx.")
    ] = False,
    keep_float: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART",
            help="Part that is not quantised, such as backbone.stem. May be repeated.",
            show_default="found by measuring",
        ),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Task to write such files for; may be repeated.", show_default="all tasks")
    ] = None,
    any_size: Annotated[
        bool, typer.Option("--any-size", help="Such files take images of other sizes too; slower.")
    ] = False,
    changes: Changes = None,
    json: Json = None,
) -> None:
    """Export a run's model as one folder: config.json, model.safetensors, model card.

    This is the retrained model if there is one, else the searched subnet with the supernet's weights. Files for other
    runtimes are compared with PyTorch on images of the search split before they are kept; they can be added to an
    exported folder later.

    \b
    Example:
      nasmvt export runs/my-run --out my-model --onnx
    """
    from nasmvt.cli.display import console, disagreement_table, int8_table, say
    from nasmvt.export import load
    from nasmvt.pipeline.deploy import DEPLOYERS, Deployment
    from nasmvt.pipeline.evaluate import data_configs, data_of
    from nasmvt.pipeline.quantize import export_int8

    exported = run is not None and (run / "config.json").is_file()
    folder = run if run is not None and exported else _export(run, arch, out, accept_unfinished, accept_changed_data)
    runtimes = [name for name, wanted in {"onnx": onnx, "pt2": pt2}.items() if wanted]
    if not runtimes and not int8:
        if exported:
            raise UserError(f"{folder} is an exported folder: pass --onnx, --int8 or --pt2 to add files, or give a run")
        put_json(json, _described(folder))
        return
    loaded = load(folder)
    data = data_of(loaded, data_configs(loaded, changes or ()))
    work = Deployment(folder=folder, loaded=loaded, data=data, tasks=task or loaded.tasks, any_size=any_size)
    differences: dict[str, float] = {}
    for name in runtimes:
        found = DEPLOYERS[name](work)
        differences |= found
        console.print(disagreement_table(found))
        say(f"written: {folder / name}  (next: nasmvt evaluate {quoted(folder)} --runtime {name})")
    described = {**_described(folder), "differences": differences}
    if int8:
        described["int8"] = export_int8(work, keep_float)
        console.print(int8_table(described["int8"]))
        say(f"written: {folder / 'int8'}  (next: nasmvt evaluate {quoted(folder)} --runtime int8)")
    put_json(json, described)


def _export(run: Path | None, arch: str, out: Path | None, accept_unfinished: bool, accept_changed_data: bool) -> Path:
    """Write a run's model as a folder, say what it holds, and return it."""
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
    content = _described(folder)
    console.print(parameters_table(content["parameters"]))
    console.print(metrics_table("on the search split", content["metrics"]))
    say(f"exported: {folder}  (next: nasmvt evaluate {quoted(folder)})")
    return folder


def _described(folder: Path) -> dict[str, Any]:
    """Return what the tables of an exported folder show, as plain values."""
    config = jsonlib.loads((folder / "config.json").read_text(encoding="utf-8"))
    metrics = {task: values for task, values in config["metrics"].items() if task != "split"}
    return {"folder": str(folder), "parameters": config["parameters"], "metrics": metrics}
