"""Finding splits and images in folders."""

from pathlib import Path

from nasmvt.errors import UserError, listed

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
"""Endings of files that count as images, in lower case."""

_ALIASES = {"train": "training", "training": "train", "val": "validation", "validation": "val"}


def split_names(split: str) -> tuple[str, ...]:
    """Return the names that a split may have on disk, the given one first."""
    return (split, _ALIASES[split]) if split in _ALIASES else (split,)


def split_folder(parent: Path, split: str) -> Path:
    """Return the folder of a split inside `parent`.

    Raises:
        UserError: if there is none, naming the folders looked for.
    """
    candidates = [parent / name for name in split_names(split)]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise UserError(
        f"the split '{split}' needs a folder, but there is no {' or '.join(map(str, candidates))}: "
        f"create it, or set train_split and val_split to the names in use"
    )


def pictures_in(folder: Path) -> list[Path]:
    """Return the image files of a folder by name, without hidden files."""
    return sorted(path for path in folder.iterdir() if is_picture(path))


def is_picture(path: Path) -> bool:
    """Return whether a path looks like an image that is not hidden."""
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


def some(names: list[str], most: int = 3) -> str:
    """Return the first few names as "a, b, c and 4 more", for an error."""
    rest = len(names) - most
    return listed(names[:most]) + (f" and {rest} more" if rest > 0 else "")
