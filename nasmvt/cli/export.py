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
    refuse_ignored,
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
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing",
            help="Write onnx/TASK.image.onnx too, which take an image as it is and give its prediction; needs the "
            "files of --onnx.",
        ),
    ] = False,
    pt2: Annotated[bool, typer.Option("--pt2", help="Write pt2/TASK.pt2 too, programs of torch.export.")] = False,
    aoti: Annotated[
        bool,
        typer.Option(
            "--aoti",
            help="Write aoti/TASK.pt2 too, compiled by AOTInductor for processors like this one; needs a C++ compiler.",
        ),
    ] = False,
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
    from nasmvt.pipeline.add_files import Wanted, add_files
    from nasmvt.pipeline.deploy import Deployment

    wanted = Wanted(
        onnx=onnx, with_preprocessing=with_preprocessing, int8=int8, pt2=pt2, aoti=aoti, keep_float=keep_float
    )
    exported = run is not None and (run / "config.json").is_file()
    if exported:
        here = {"--arch": arch != "best", "--out": out, "--accept-unfinished": accept_unfinished}
        refuse_ignored(f"where {run} is an exported folder", {**here, "--accept-changed-data": accept_changed_data})
    if not wanted.any:
        refuse_ignored(
            "without --onnx, --with-preprocessing, --int8, --pt2 or --aoti",
            {"--task": task, "--any-size": any_size, "--set": changes},
        )
    if not int8:
        refuse_ignored("without --int8", {"--keep-float": keep_float})
    folder = run if run is not None and exported else _export(run, arch, out, accept_unfinished, accept_changed_data)
    if not wanted.any:
        if exported:
            raise UserError(
                f"{folder} is an exported folder: pass --onnx, --int8, --pt2 or --aoti to add files, or give a run"
            )
        put_json(json, _described(folder))
        return
    work = Deployment.open(folder, tasks=task, any_size=any_size, changes=changes or ())
    described = {**_described(folder), "differences": {}}
    for name, found in add_files(work, wanted):
        if name == "int8":
            described["int8"] = found
            console.print(int8_table(found))
        else:
            described["differences"] |= found
            console.print(disagreement_table(found))
        if name == "with_preprocessing":
            say(f"written: {folder / 'onnx'}  (next: python {quoted(folder / 'run_onnx.py')} TASK IMAGE)")
        else:
            say(f"written: {folder / name}  (next: nasmvt evaluate {quoted(folder)} --runtime {name})")
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
