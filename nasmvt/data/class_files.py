"""Files that name classes, and optionally their colours in label maps."""

import re
from collections import Counter
from pathlib import Path

from nasmvt.data.folders import some
from nasmvt.errors import UserError
from nasmvt.text import read_lines

_NUMBER = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_COLOUR = rf"(?P<red>{_NUMBER})[\s,]+(?P<green>{_NUMBER})[\s,]+(?P<blue>{_NUMBER})"
_WITH_COLOUR = (
    re.compile(rf"(?P<name>.*\S)\s*[\s,:]\s*{_COLOUR}[\s:,]*"),  # name r g b; CVAT's name:r,g,b::
    re.compile(rf"{_COLOUR}[\s,]+(?P<name>\S.*)"),  # r g b name
)
_FILES = ("classes.txt", "labelmap.txt", "class_dict.csv", "label_colors.txt")
_TABLE = "objectInfo150.txt"


def read_classes(root: Path) -> dict[str, str | None]:
    """Return the classes that a file in the root names, in order, each with its colour "#rrggbb" or None.

    These files are looked for: classes.txt (`name` or `1<TAB>name` per line; with a colour `name 128 0 0` or
    `128 0 0 name`), CVAT's labelmap.txt, class_dict.csv, label_colors.txt, and ADE20K's objectInfo150.txt. Without
    one there are no classes.

    Raises:
        UserError: if the file can't be read, names nothing, a class twice, or colours for some classes only.
    """
    for path in (root / name for name in _FILES):
        if path.is_file():
            return _checked([_split(line) for line in read_lines(path) if not _is_heading(line)], path)
    table = root / _TABLE
    if table.is_file():
        # The table's names are lists of synonyms; the first one is the name in common use.
        rows = read_lines(table)[1:]
        return _checked([(row.split("\t")[-1].split(",")[0].strip(), None) for row in rows], table)
    return {}


def _is_heading(line: str) -> bool:
    return (
        line.startswith("# label:") or re.fullmatch(r"name\s*,\s*r\s*,\s*g\s*,\s*b\s*", line, re.IGNORECASE) is not None
    )


def _split(line: str) -> tuple[str, str | None]:
    for pattern in _WITH_COLOUR:
        if found := pattern.fullmatch(line.strip()):
            return found["name"].strip(" \t,:"), "#" + "".join(
                f"{int(found[part]):02x}" for part in ("red", "green", "blue")
            )
    return line.split("\t")[-1].strip(), None


def _checked(rows: list[tuple[str, str | None]], path: Path) -> dict[str, str | None]:
    if not rows:
        raise UserError(f"{path} must name the classes, but is empty: write one name per line")
    for index, what in enumerate(("name", "colour")):
        counts = Counter(row[index] for row in rows)
        repeated = sorted(str(value) for value, count in counts.items() if count > 1 and value is not None)
        if repeated and what == "name":
            raise UserError(f"{path} must name every class once, but names {some(repeated)} twice: fix it")
        if repeated:
            raise UserError(f"{path} must give every class its own colour, but gives {some(repeated)} twice: fix it")
    bare = [name for name, colour in rows if colour is None]
    if 0 < len(bare) < len(rows):
        raise UserError(f"{path} gives colours for some classes, but none for {some(bare)}: add them")
    return dict(rows)
