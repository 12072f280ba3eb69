"""Locating the files of a data set in COCO's layout."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath

from nasmvt.data.folders import FileList, MissingSplit, is_file, is_folder, scan, some, split_names, starting_with
from nasmvt.data.spellings import Spellings
from nasmvt.errors import UserError

_AMONG_IMAGES = "_annotations.coco.json"
"""The annotation file of an export by Roboflow, in the folder of the images."""


def find_annotations(root: Path, split: str) -> Path:
    """Return the annotation file of a split: instances_<split>.json, or the only instances_<split>*.json.

    Where there is none, <split>/_annotations.coco.json.

    Raises:
        MissingSplit: if there is none.
        UserError: if several match.
    """
    folder = root / "annotations"
    exact = [folder / f"instances_{name}.json" for name in split_names(split)]
    for path in (*exact, *(root / name / _AMONG_IMAGES for name in split_names(split))):
        if is_file(path):
            return path
    similar = [path for path in starting_with(folder, f"instances_{split}") if path.suffix == ".json"]
    if len(similar) == 1:
        return similar[0]
    if similar:
        example = similar[0].stem.removeprefix("instances_")
        raise UserError(
            f"the split '{split}' must have one annotation file, but {folder} holds "
            f"{some([path.name for path in similar])}: set train_split and val_split to full names, such as "
            f"'{example}'"
        )
    raise MissingSplit(f"there is no annotation file {exact[0]}: create it or set train_split and val_split")


def find_images(root: Path, split: str, annotations: Path) -> Path:
    """Find the images of a split: beside their annotations, or images/<split>, <split>, these with a year, or images.

    Raises:
        UserError: if there is none of these.
    """
    if annotations.name == _AMONG_IMAGES:
        return annotations.parent
    names = dict.fromkeys([annotations.stem.removeprefix("instances_"), *split_names(split)])
    parents = (root / "images", root)
    for parent in parents:
        for name in names:
            if is_folder(parent / name):
                return parent / name
    for parent in parents:
        similar = [path for path in starting_with(parent, split) if is_folder(path)]
        if len(similar) == 1:
            return similar[0]
    if is_folder(parents[0]):
        return parents[0]
    raise UserError(
        f"the images of the split '{split}' must lie in {root / 'images' / split}, {root / split} or "
        f"{root / 'images'}, but there is none of them: move them there"
    )


def locate(files: Sequence[str], folder: Path, root: Path, source: Path) -> FileList:
    """Find the files that an annotation file lists.

    A name is looked up as given, in any normal form, below the folder of the images and below the root; then with the
    other separator, and with more and more of its leading folders removed, since names may come from other machines.

    Args:
        files: the names as the annotation file gives them.
        folder: the folder of the images.
        root: the folder of the data set.
        source: the annotation file.

    Raises:
        UserError: if one can't be found, or two images have the same file.
    """
    here = Spellings(entry.name for entry in scan(folder))
    found, missing = [], []
    for name in files:
        path = here.find(name) or next(_existing(name, folder, root), None)
        if path is None:
            missing.append(str(folder / name))
        else:
            found.append(path)
    if missing:
        raise UserError(f"{source} lists images that do not exist, {some(missing)}: add them or fix the list")
    owner: dict[str, str] = {}
    for name, path in zip(files, found, strict=True):
        if path in owner:
            raise UserError(
                f"{source}: every image has a file of its own, but {owner[path]} and {name} are both "
                f"{folder / path}: merge these images, or fix the file names"
            )
        owner[path] = name
    return FileList(folder, found)


def _existing(name: str, folder: Path, root: Path) -> Iterator[str]:
    """Yield paths of files, relative to the folder or absolute, that a name may mean."""
    for candidate in dict.fromkeys((name, name.replace("\\", "/"))):
        for parent in (folder, root):
            if is_file(parent / candidate):
                yield os.path.relpath(parent / candidate, folder)
    parts = PureWindowsPath(name).parts  # takes both separators
    for start in range(1, len(parts)):
        if is_file(folder.joinpath(*parts[start:])):
            yield "/".join(parts[start:])
