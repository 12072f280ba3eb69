"""Classification from a folder per class: root/<split>/<class>/<image>."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nasmvt.data.dataset import Classes, Dataset, Request, text_digest
from nasmvt.data.folders import FileList, LeftOut, find_split_folder, images_in, scan, split_folder
from nasmvt.data.formats import register_format
from nasmvt.data.pictures import look_at, read_picture
from nasmvt.data.report import LabelCounts, Look, count_indices
from nasmvt.data.token_labels import check_files, label_file
from nasmvt.data.types import DataInfo, Sample
from nasmvt.errors import UserError


@register_format("imagefolder", "classification")
class ImageFolder(Dataset):
    """Images whose class is the name of their folder.

    The labels are the positions of the class folders of the *training* split in alphabetical order, in
    every split. Hidden files, other files and sub-folders of a class are ignored.

    Raises:
        UserError: if a split or a class has no images, or a validation class is unknown in training.
    """

    def __init__(self, request: Request) -> None:
        root, config, left_out = request.root, request.config, LeftOut()
        folder = _split_folder(request, request.split_name)
        found = _class_folders(folder, left_out)
        if request.known is not None:
            classes = Classes.known(config, request.known.classes, found)
        elif request.of_training:
            classes = Classes.found(config, found)
        else:
            classes = Classes.found(config, _class_folders(_split_folder(request, config.train_split)))
        labels = classes.of(found, folder)
        counts: list[int] = []
        inside = "" if folder == root else f"{folder.name}/"

        def names() -> Iterator[str]:
            for name in found:
                prefix = f"{inside}{name}/"
                images = images_in(folder / name, left_out, prefix)
                if not images:
                    raise UserError(f"the class folder {folder / name} holds no images: fill it or remove it")
                counts.append(len(images))
                yield from (prefix + image for image in images)

        self._files = FileList(root, names())
        self._token_labels: FileList | None = None
        if config.token_labels is not None and request.of_training:
            check_files(config.token_labels, self._files.names)
            self._token_labels = FileList(config.token_labels, map(label_file, self._files.names))
        self._labels = np.repeat(labels.astype(np.int32), counts)
        self.left_out = left_out.names()
        self.info = DataInfo(kind="classification", classes=classes.names)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        """Return an image, upright by its EXIF orientation, and its label."""
        image = read_picture(self._files[index], upright=True)
        return Sample(id=self._files.names[index], image=image, target=int(self._labels[index]))

    def look(self, index: int) -> Look:
        """Return what the header of an image says."""
        return look_at(self._files[index])

    def label_counts(self, indices: np.ndarray) -> LabelCounts:
        """Count the images of each class."""
        counts = count_indices(self._labels[indices], len(self.info.classes))
        return LabelCounts(unit="images", images=len(indices), classes=counts)

    def digest(self) -> str:
        """Return a digest over the names and sizes of the images and of their token labels."""
        images = self._files.digest()
        return images if self._token_labels is None else text_digest(images, self._token_labels.digest())


def _split_folder(request: Request, name: str) -> Path:
    """Return the folder of a split; data split by seed may have none and contain the class folders directly."""
    if request.config.split is not None and find_split_folder(request.root, name) is None:
        return request.root
    return split_folder(request.root, name)


def _class_folders(folder: Path, left_out: LeftOut | None = None) -> list[str]:
    left_out = left_out or LeftOut()
    names = []
    for entry in scan(folder):
        if entry.name.startswith("."):
            left_out.add(LeftOut.HIDDEN, f"{folder.name}/{entry.name}")
        elif entry.is_dir():
            if not entry.name.isprintable():
                raise UserError(
                    f"the name of a class folder must be text, but {entry.name!a} in {folder} has bytes that are "
                    f"not UTF-8, or control characters: rename it"
                )
            names.append(entry.name)
        else:
            left_out.add(LeftOut.ENDING, f"{folder.name}/{entry.name}")
    if not names:
        raise UserError(f"{folder} must hold one folder of images per class, but holds none: add them")
    return names
