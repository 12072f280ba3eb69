"""The input images of a finished model, and names for its outputs."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from nasmvt.data import read_picture
from nasmvt.data.folders import PICTURE_SUFFIXES, has_image_suffix
from nasmvt.errors import UserError, listed
from nasmvt.pipeline.datasets import TaskData
from nasmvt.tasks.config import TaskConfig

_JUNK = {"__MACOSX", "@eaDir"}
"""Folders that archives and network drives add, with files that only look like images."""

_LONGEST = 200
"""Maximum bytes of a name; file systems allow 255, extensions included."""


@dataclass(frozen=True)
class Picture:
    """An image to predict, read on demand."""

    name: str
    """Names the files that are written; unique, ignoring case."""
    source: str
    """Its origin: a path, or a data set's id."""
    read: Callable[[], Image.Image]


def find_pictures(paths: Iterable[Path], out: Path | None = None) -> list[Picture]:
    """Return the images in files and folders, each once; folders are searched recursively.

    Hidden files and folders are skipped.

    Args:
        paths: files and folders.
        out: where predictions go; files there are not images to predict.

    Raises:
        UserError: if a path does not exist, or there is no image at all.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if path.is_dir():
            found |= {os.path.abspath(file): file for file in _images_below(path, out)}  # noqa: PTH100 (keeps links)
        elif path.is_file():
            found[os.path.abspath(path)] = path  # noqa: PTH100
        else:
            raise UserError(f"there is no image or folder {path}: check the path")
    if not found:
        raise UserError(
            f"there is no image among the paths given; suffixes that count: {listed(sorted(PICTURE_SUFFIXES))}"
        )
    files = list(found.values())
    return [
        Picture(name, str(path), lambda path=path: read_picture(path))  # type: ignore[misc]
        for name, path in zip(_names(files), files, strict=True)
    ]


def val_pictures(config: TaskConfig, count: int, seed: int) -> list[Picture]:
    """Return the first images of a task's val split."""
    val = TaskData("val", config, seed).val
    return [
        Picture(f"val-{number:03d}", str(val[number].id), lambda number=number: val[number].image)  # type: ignore[misc]
        for number in range(min(count, len(val)))
    ]


def _images_below(folder: Path, out: Path | None) -> list[Path]:
    skipped = None if out is None else out.resolve()
    found: list[Path] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _is_junk(name) and (Path(parent) / name).resolve() != skipped]
        found.extend(Path(parent) / name for name in files if has_image_suffix(name) and not _is_junk(name))
    return sorted(found)


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name in _JUNK


def _names(paths: Sequence[Path]) -> Iterator[str]:
    """Yield a unique name for each path: its stem, its whole path, or that with a number."""
    stems = Counter(path.stem.casefold() for path in paths)
    taken = {stem for stem, number in stems.items() if number == 1}
    for path in paths:
        if stems[path.stem.casefold()] == 1 and len(os.fsencode(path.stem)) <= _LONGEST:
            yield path.stem
            continue
        whole = _cut("-".join((*path.parent.parts, path.stem, path.suffix.removeprefix("."))).strip("/-"))
        name, number = whole, 1
        while name.casefold() in taken:
            number += 1
            name = f"{whole}-{number}"
        taken.add(name.casefold())
        yield name


def _cut(name: str) -> str:
    """Return the end of a name that a file system allows."""
    while len(os.fsencode(name)) > _LONGEST:
        name = name[1:]
    return name


def part_name(name: str, part: str, names: Iterable[str]) -> str:
    """Return a unique name for a part of an image's prediction.

    Args:
        name: the image's name.
        part: what it is: "labels".
        names: those of all images, in lower case.
    """
    found = f"{name}_{part}"
    while found.casefold() in names:
        found += "_"
    return found
