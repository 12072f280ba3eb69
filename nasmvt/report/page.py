"""The report as one HTML file: everything is inside of it, nothing is loaded from elsewhere."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

from PIL import Image

_LARGEST_WIDTH = 1400
"""Pixels; larger images are reduced to it."""
_LINE = 50
"""Characters of a cell; longer ones are broken into lines on a narrow screen."""
_LONG = ' class="long"'


@dataclass(frozen=True)
class Section:
    """A section of the page, which its navigation leads to."""

    id: str
    title: str
    content: str
    """HTML."""

    def __str__(self) -> str:
        return f'<section id="{escape(self.id)}"><h2>{escape(self.title)}</h2>{self.content}</section>'


def page(title: str, facts: str, sections: Sequence[Section], refresh: int | None = None) -> str:
    """Return the whole page.

    Args:
        title: of the page.
        facts: HTML below the title.
        sections: in order.
        refresh: seconds after which a browser loads the page again; None: never.
    """
    again = "" if refresh is None else f'<meta http-equiv="refresh" content="{refresh}">'
    links = "".join(f'<a href="#{escape(section.id)}">{escape(section.title)}</a>' for section in sections)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{again}'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{_asset('page.css')}</style></head>"
        f"<body><header><h1>{escape(title)}</h1>{facts}<nav>{links}</nav></header>"
        f"<main>{''.join(map(str, sections))}</main><script>{_asset('page.js')}</script></body></html>\n"
    )


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], best: int | None = None) -> str:
    """Return a table; numbers and texts of numbers are aligned on the right.

    Args:
        headers: of the columns.
        rows: cells, shown by `str`.
        best: the row to emphasise.
    """
    lines = [[str(cell) for cell in row] for row in rows]
    numeric = [all(_is_number(row[i]) for row in lines) for i in range(len(headers))]
    kinds = [' class="n"' if number else "" for number in numeric]
    head = "".join(f"<th{kind}>{escape(text)}</th>" for kind, text in zip(kinds, headers, strict=True))
    body = "".join(
        ('<tr class="best">' if number == best else "<tr>")
        + "".join(
            f"<td{kind or _LONG * (len(text) > _LINE)}>{escape(text)}</td>"
            for kind, text in zip(kinds, row, strict=True)
        )
        + "</tr>"
        for number, row in enumerate(lines)
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(values: Iterable[tuple[str, str]]) -> str:
    """Return names with values in large type."""
    return '<div class="facts">' + "".join(f"<span>{escape(n)}<b>{escape(v)}</b></span>" for n, v in values) + "</div>"


def note(text: str) -> str:
    """Return a paragraph in small type."""
    return f'<p class="soft">{escape(text)}</p>'


def row(parts: Iterable[str]) -> str:
    """Return parts side by side, as far as there is room."""
    return f'<div class="row">{"".join(parts)}</div>'


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Return names with their colours."""
    items = "".join(f'<span><i style="background:{color}"></i>{escape(name)}</span>' for name, color in entries)
    return f'<div class="legend">{items}</div>'


def figure(content: str, caption: str, *, double: bool = False) -> str:
    """Return a figure with its caption; a double one takes twice the width of another beside it."""
    kinds = "chart double" if double else "chart"
    return (
        f'<figure class="{kinds}"><div class="wide">{content}</div><figcaption>{escape(caption)}</figcaption></figure>'
    )


def image(path: Path, caption: str, *, double: bool = False) -> str:
    """Return an image file as a figure that holds its pixels, as JPEG; nothing if there is no such file.

    Args:
        path: the file.
        caption: below it.
        double: whether it shows pairs, and takes twice the width of another beside it.
    """
    if not path.is_file():
        return ""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((_LARGEST_WIDTH, 100 * _LARGEST_WIDTH))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return figure(
        f'<img alt="{escape(caption)}" width="{picture.width}" height="{picture.height}" '
        f'src="data:image/jpeg;base64,{data}">',
        caption,
        double=double,
    )


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "").replace("-", "").replace(" %", "").isdecimal() or text in {"", "nan"}
