"""`nasmvt draft-space`."""

from pathlib import Path
from typing import Annotated

import typer

from nasmvt.cli.common import quoted, reports_errors

_SOURCE = "timm:"


@reports_errors
def draft_space(
    network: Annotated[str, typer.Argument(metavar="timm:NAME", help="Network, such as timm:resnet50.a1_in1k.")],
    out: Annotated[Path, typer.Option(help="YAML file to create.")],
) -> None:
    """Draft the search space of any network of timm: depth, widths, attention heads.

    Nothing is downloaded: the space follows from the network's structure.

    \b
    Example:
      nasmvt draft-space timm:resnet50 --out r50.yaml
    """
    from nasmvt.errors import UserError

    if not network.startswith(_SOURCE):
        raise UserError(f"a network is named as timm:NAME, not {network!r}: write timm:{network}")
    if out.suffix not in {".yaml", ".yml"}:
        raise UserError(f"--out must name a .yaml file, not {out}: write {out.with_suffix('.yaml')}")
    if out.exists():
        raise UserError(f"{out} exists: give another name, or remove it")

    import timm
    from rich.markup import escape

    from nasmvt import __version__
    from nasmvt.cli.display import console, say
    from nasmvt.cli.tables import new_table
    from nasmvt.drafting import draft
    from nasmvt.drafting.space_file import refusals, text_of
    from nasmvt.files import write_text

    drafted = draft(network.removeprefix(_SOURCE))
    space = drafted.space(out.stem)
    table = new_table("choices", "choice", "options", "of", left=("choice", "options", "of"), wrap=("choice", "of"))
    for name, choice in space.choices.items():
        if len(choice.options) > 1:
            per = f" (each of {choice.per})" if choice.per else ""
            table.add_row(name, " ".join(map(str, choice.options)), escape(drafted.notes[name] + per))
    console.print(table)
    for line in refusals(drafted.fixed):
        say(f"does not vary, as it {line}")
    write_text(out, text_of(drafted, f"nasmvt {__version__} and timm {timm.__version__}"))
    smallest, published = drafted.parameters
    say(f"{space.size:.1e} networks of {smallest / 1e6:.2f} to {published / 1e6:.2f} M parameters without heads")
    say(f"written: {out}  (next: nasmvt train-supernet shapes --set space={quoted(out)})")
