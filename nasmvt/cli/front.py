"""`nasmvt front`."""

from pathlib import Path
from typing import Annotated

import typer

from nasmvt.cli.common import Json, RunArgument, put_json, quoted, reports_errors, written


@reports_errors
def front(
    run: RunArgument = None,
    search: Annotated[Path | None, typer.Option(help="Folder of the search.", show_default="RUN/search")] = None,
    pick: Annotated[
        str | None,
        typer.Option(
            help="Make the best candidate of at most so many parameters the result of the search: 40M, 60% of the "
            "largest network's.",
            show_default="leave it as it is",
        ),
    ] = None,
    json: Json = None,
) -> None:
    """Show the candidates of a search that no other candidate is better than, and choose one of them.

    Without several objectives, those of T-score and parameters are shown.

    \b
    Example:
      nasmvt front runs/my-run --pick 2M
    """
    from nasmvt.cli.display import console, front_table, say
    from nasmvt.cost import parse_count
    from nasmvt.pipeline.front import Front
    from nasmvt.pipeline.run import Run

    limit = None if pick is None else parse_count(pick)
    found = Front(Run.open(run), search)
    console.print(front_table(found.members, len(found.candidates)))
    put_json(json, [member.to_dict() for member in found.members])
    written(found.write, found.files.front_plot)
    if limit is not None:
        best = found.pick(limit)
        say(f"picked: T-score {best.score:.2f}, {best.parameters.total:,} parameters, {best.arch}")
        arch = "" if search is None else f" --arch {quoted(found.files.best)}"
        say(f"written: {found.files.best}  (next: nasmvt retrain {quoted(found.run.path)}{arch})")
