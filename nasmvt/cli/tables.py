"""Tables that fit any terminal: only cells of long texts are wrapped, numbers and names never are.

Columns that find no room beside the others go on below, beside the first column once more, as pandas prints them.
"""

from collections.abc import Collection, Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table

LEAST = 14
"""Characters that a column of long texts is given at least."""


class FittedTable(Table):
    """A table whose columns are continued below where the console is too narrow for all of them."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = [self._width(column, console, options) for column in self.columns]
        parts = list(_parts(widths, options.max_width))
        if len(parts) == 1:
            yield from super().__rich_console__(console, options)
            return
        for places in parts:
            yield self._part(places)

    @staticmethod
    def _width(column: Column, console: Console, options: ConsoleOptions) -> int:
        """Return the characters that a column takes, with its padding and a border."""
        cells: list[RenderableType] = [column.header, *column.cells]
        longest = max(Measurement.get(console, options, cell).maximum for cell in cells)
        return 3 + (longest if column.no_wrap else min(longest, LEAST))

    def _part(self, places: Sequence[int]) -> Table:
        """Return a table of some of the columns."""
        part = Table(title=self.title if places[-1] == len(places) - 1 else None, title_justify="left")
        columns = [self.columns[place] for place in places]
        for column in columns:
            part.add_column(column.header, no_wrap=column.no_wrap, overflow=column.overflow, justify=column.justify)
        for row, cells in zip(self.rows, zip(*(column.cells for column in columns), strict=True), strict=True):
            part.add_row(*cells, end_section=row.end_section)
        return part


def _parts(widths: Sequence[int], room: int) -> Iterator[list[int]]:
    """Yield the places of the columns that stand side by side; the first column begins every part."""
    part, taken = [0], 1 + widths[0]
    for place, width in enumerate(widths[1:], 1):
        if taken + width > room and len(part) > 1:
            yield part
            part, taken = [0], 1 + widths[0]
        part.append(place)
        taken += width
    yield part


def new_table(title: str, *headers: str, left: Collection[str] = (), wrap: Collection[str] = ()) -> Table:
    """Return an empty table. Headers of several words stand on several lines.

    Args:
        title: above the table.
        headers: of the columns.
        left: those of short texts, aligned on the left; other columns hold numbers, aligned on the right.
        wrap: those of long texts, which take the room that is left and are wrapped in it.
    """
    table = FittedTable(title=title, title_justify="left")
    for header in headers:
        if header in wrap:
            table.add_column(header, overflow="fold")
        else:
            lines = header.replace(" ", "\n")
            table.add_column(lines, no_wrap=True, overflow="fold", justify="left" if header in left else "right")
    return table
