"""`nasmvt import-reference`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nasmvt.cli.common import Json, put_json, quoted, reports_errors

if TYPE_CHECKING:
    from rich.table import Table


@reports_errors
def import_reference(
    space: Annotated[str, typer.Option(help="Space of the checkpoints: a shipped name, or a YAML file.")],
    out: Annotated[Path, typer.Option(help="Folder to create.")],
    cls: Annotated[
        Path | None, typer.Option(help="Checkpoint of the classification network.", show_default="no such task")
    ] = None,
    det: Annotated[
        Path | None, typer.Option(help="Checkpoint of the detection network.", show_default="no such task")
    ] = None,
    seg: Annotated[
        Path | None, typer.Option(help="Checkpoint of the segmentation network.", show_default="no such task")
    ] = None,
    qkv: Annotated[
        str,
        typer.Option(
            metavar="specific|reference",
            help="Weight of a qkv that is specific by score: its own, or the shared one as in the authors' program.",
        ),
    ] = "specific",
    classes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK=FILE",
            help="Class names of a task, one per line. May be repeated.",
            show_default="ImageNet's and COCO's, or numbers",
        ),
    ] = None,
    json: Json = None,
) -> None:
    """Merge the ViT-MVT authors' checkpoints of two or three tasks into one exported folder.

    Tensors that the files share are stored once; import.json in the folder records what was merged.

    \b
    Example:
      nasmvt import-reference --space vit_mvt_small --cls A.pth --det B.pth --seg C.pth --out my-model
    """
    from typing import cast, get_args

    from nasmvt.cli.display import console, parameters_table, say
    from nasmvt.errors import UserError, listed
    from nasmvt.families.vit_mvt_reference import QKV
    from nasmvt.pipeline.import_reference import REPORT
    from nasmvt.pipeline.import_reference import import_reference as run
    from nasmvt.space import load_space

    if qkv not in get_args(QKV):
        raise UserError(f"--qkv must be one of {listed(get_args(QKV))}, not {qkv!r}: change it or leave it out")
    files = {task: path for task, path in (("cls", cls), ("det", det), ("seg", seg)) if path is not None}
    names = dict(map(_class_names, classes or ()))
    report = run(files, load_space(space), out, qkv=cast(QKV, qkv), classes=names)
    for table in (_totals(report), _layers(report), _unused(report), parameters_table(report["parameters"]["merged"])):
        console.print(table)
    put_json(json, report)
    for layer in report["merged"]["shared by score, but different"]:
        say(f"shared by score, but its tensors differ: {layer}")
    say(f"imported: {out}  (all that was merged: {quoted(out / REPORT)}; next: nasmvt predict {quoted(out)} IMAGES)")


def _class_names(text: str) -> tuple[str, list[str]]:
    from nasmvt.errors import UserError

    task, equals, file = text.partition("=")
    if not equals or not task or not file:
        raise UserError(f"--classes takes TASK=FILE such as seg=classes.txt, not {text!r}")
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{file} must hold one class name per line, but is not UTF-8 text: store it as such") from None
    return task, [line.strip() for line in lines if line.strip()]


def _totals(report: dict[str, Any]) -> "Table":
    """Return the table of parameters before and after."""
    from nasmvt.cli.tables import new_table

    parameters = report["parameters"]
    table = new_table("parameters before and after", "where", "total", *report["files"], left=("where",))
    for row in ("in the files", "networks alone"):
        table.add_row(row, *(f"{count:,}" for count in parameters[row].values()))
    table.add_row("merged", f"{parameters['merged']['total']:,}")
    return table


def _layers(report: dict[str, Any]) -> "Table":
    """Return the table of what was merged."""
    from nasmvt.cli.tables import new_table

    merged = report["merged"]
    title = f"{merged['layers']} layers merged, {merged['parameters']:,} parameters stored once"
    rows = merged["by kind of layer"]
    table = new_table(title, "layer of the backbone", *next(iter(rows.values()), {}), wrap=("layer of the backbone",))
    for kind, counts in rows.items():
        table.add_row(kind, *(str(count) if count else "" for count in counts.values()))
    return table


def _unused(report: dict[str, Any]) -> "Table":
    """Return the table of tensors in the files that the networks do not use."""
    from nasmvt.cli.tables import new_table

    unused = report["unused"]
    table = new_table("tensors of the files left out by rule", "rule", *unused, wrap=("rule",))
    for rule in dict.fromkeys(rule for rules in unused.values() for rule in rules):
        table.add_row(rule, *(str(len(rules.get(rule, ()))) for rules in unused.values()))
    return table
