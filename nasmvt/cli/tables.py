"""Tables that fit a terminal of 80 columns: only cells of long texts are wrapped, numbers and names never are."""

from collections.abc import Collection

from rich.table import Table


def new_table(title: str, *headers: str, left: Collection[str] = (), wrap: Collection[str] = ()) -> Table:
    """Return an empty table. Headers of several words stand on several lines.

    Args:
        title: above the table.
        headers: of the columns.
        left: those of short texts, aligned on the left; other columns hold numbers, aligned on the right.
        wrap: those of long texts, which take the room that is left and are wrapped in it.
    """
    table = Table(title=title, title_justify="left")
    for header in headers:
        if header in wrap:
            table.add_column(header, overflow="fold")
        else:
            lines = header.replace(" ", "\n")
            table.add_column(lines, no_wrap=True, overflow="fold", justify="left" if header in left else "right")
    return table
