"""`nasmvt runs`."""

from pathlib import Path
from typing import Annotated

import typer

from nasmvt.cli.common import Json, put_json, reports_errors


@reports_errors
def runs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of run directories.")] = Path("runs"),
    json: Json = None,
) -> None:
    """List the runs in a folder, the newest last: the last step done, T-score and size of the searched arch.

    \b
    Example:
      nasmvt runs --json -
    """
    from nasmvt.cli.display import console, runs_table
    from nasmvt.pipeline.runs import list_runs

    found = list_runs(folder)
    console.print(runs_table(found))
    put_json(json, [state.to_dict() for state in found])
