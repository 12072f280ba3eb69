"""`nasmvt runs`."""

from pathlib import Path
from typing import Annotated

import typer

from nasmvt.cli.common import reports_errors


@reports_errors
def runs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of run directories.")] = Path("runs"),
) -> None:
    """List the runs in a folder, the newest last: the last step done, T-score and size of the searched arch.

    \b
    Example:
      nasmvt runs
    """
    from nasmvt.cli.display import console, runs_table
    from nasmvt.pipeline.runs import list_runs

    console.print(runs_table(list_runs(folder)))
