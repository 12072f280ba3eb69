"""Finding splits and images in folders."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nasmvt.data.names import Names
from nasmvt.errors import UserError, listed

PICTURE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"),
        *(".tif", ".tiff", ".webp", ".avif", ".jp2"),
    }
)
"""File extensions of images, in lower case."""

_ALIASES = (("train", "training"), ("val", "validation", "valid"))
"""Names that mean the same split, the preferred one first."""


class MissingSplit(UserError):
    """A split that does not exist on disk."""


class LeftOut:
    """Names of the files that a data set ignores, by reason."""

    ENDING = "ending"
    """It has no image extension."""
    HIDDEN = "hidden"
    """Its name begins with a dot."""
    SUB_FOLDER = "sub-folder"
    """It is a folder where only images are expected."""
    NO_ANNOTATION = "no annotation"
    """An image without annotations."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Record one name."""
        self._names.setdefault(reason, []).append(name)

    def names(self) -> Mapping[str, Sequence[str]]:
        """Return the names by reason, in the order they were recorded."""
        return {reason: Names(names) for reason, names in self._names.items()}


class FileList(Sequence[Path]):
    """A large number of files, in little memory.

    Args:
        root: the folder that the names are relative to.
        names: paths relative to it, with "/"; or absolute ones.
    """

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        self.root = root
        self.names = Names(names)

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.names)

    def __getitem__(self, index: int) -> Path:  # type: ignore[override]  # no slices
        """Return the path of a file."""
        return self.root / self.names[index]

    def digest(self, contents: bool = False) -> str:
        """Return a digest over the sorted names and their sizes in bytes, or over their contents.

        Raises:
            UserError: if a file is gone.
        """
        digest = hashlib.blake2b(digest_size=16)
        root = str(self.root)
        for name in sorted(self.names):
            path = os.path.join(root, name)  # noqa: PTH118 (a million times)
            try:
                size = os.stat(path).st_size  # noqa: PTH116
                digest.update(f"{name}\n{size}\n".encode("utf-8", "surrogatepass"))
                if contents:
                    digest.update(Path(path).read_bytes())
            except OSError as error:
                raise UserError(f"{path} can't be read ({error.strerror}): restore it or open the data again") from None
        return digest.hexdigest()


def split_names(split: str) -> tuple[str, ...]:
    """Return the names that a split may have on disk, the given one first."""
    return tuple(dict.fromkeys((split, *(name for names in _ALIASES if split in names for name in names))))


def find_split_folder(parent: Path, split: str) -> Path | None:
    """Return the folder of a split inside `parent`, if there is one."""
    return next((parent / name for name in split_names(split) if is_folder(parent / name)), None)


def split_folder(parent: Path, split: str) -> Path:
    """Return the folder of a split inside `parent`.

    Raises:
        MissingSplit: if there is none, naming the folders looked for.
    """
    folder = find_split_folder(parent, split)
    if folder is None:
        candidates = [parent / name for name in split_names(split)]
        raise MissingSplit(
            f"the split '{split}' needs a folder, but there is no {' or '.join(map(str, candidates))}: "
            f"create it, or set train_split and val_split to the names in use"
        )
    return folder


def images_in(folder: Path, left_out: LeftOut | None = None, prefix: str = "") -> list[str]:
    """Return the names of the image files of a folder, sorted.

    Args:
        folder: where to look, not recursively.
        left_out: records what is ignored.
        prefix: prefix of the names in `left_out`.

    Raises:
        UserError: if the folder can't be read.
    """
    found = []
    left_out = left_out or LeftOut()
    for entry in scan(folder):
        if entry.name.startswith("."):
            left_out.add(LeftOut.HIDDEN, prefix + entry.name)
        elif entry.is_dir():
            left_out.add(LeftOut.SUB_FOLDER, prefix + entry.name)
        elif has_image_suffix(entry.name):
            found.append(entry.name)
        else:
            left_out.add(LeftOut.ENDING, prefix + entry.name)
    return sorted(found)


def scan(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder by name.

    Raises:
        UserError: if it can't be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"the folder {folder} can't be read ({error.strerror}): check it and its permissions") from None


def is_file(path: Path) -> bool:
    """Return whether there is a file; unlike `Path.is_file` it never raises, whatever the path."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Return whether there is a folder; unlike `Path.is_dir` it never raises, whatever the path."""
    return os.path.isdir(path)  # noqa: PTH112


def starting_with(folder: Path, start: str) -> list[Path]:
    """Return the entries of a folder whose names start with a prefix, sorted; nothing if there is no folder."""
    return [folder / entry.name for entry in scan(folder) if entry.name.startswith(start)] if is_folder(folder) else []


def has_image_suffix(name: str) -> bool:
    """Return whether a file name has an image extension."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES  # noqa: PTH122 (a million times)


def some(names: Sequence[str], most: int = 3) -> str:
    """Return the first few names as "a, b, c and 4 more", for an error."""
    rest = len(names) - most
    return listed(names[:most]) + (f" and {rest} more" if rest > 0 else "")
