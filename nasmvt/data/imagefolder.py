"""Classification from a folder per class: root/<split>/<class>/<image>."""

from pathlib import Path

from nasmvt.data.config import DataConfig
from nasmvt.data.dataset import Dataset, Split, class_names, split_name
from nasmvt.data.folders import pictures_in, some, split_folder
from nasmvt.data.pictures import read_picture
from nasmvt.data.types import DataInfo, Sample
from nasmvt.errors import UserError


class ImageFolder(Dataset):
    """Images whose class is the folder they lie in.

    The labels are the places of the class folders of the *training* split in alphabetical order, in
    every split. Hidden files and files that are no images are passed over.

    Raises:
        UserError: if a split or a class has no images, or a validation class is unknown in training.
    """

    def __init__(self, config: DataConfig, root: Path, split: Split) -> None:
        known = _class_names(split_folder(root, config.train_split))
        folder = split_folder(root, split_name(config, split))
        names = _class_names(folder)
        unknown = [name for name in names if name not in known]
        if unknown:
            raise UserError(
                f"every class of {folder} must be one of the training split, but {some(unknown)} is not: "
                f"rename or remove it"
            )
        self._root = root
        self._items: list[tuple[Path, int]] = []
        for name in names:
            pictures = pictures_in(folder / name)
            if not pictures:
                raise UserError(f"the class folder {folder / name} holds no images: fill it or remove it")
            self._items += [(path, known.index(name)) for path in pictures]
        self.info = DataInfo(kind="classification", classes=class_names(config, known))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._items)

    def __getitem__(self, index: int) -> Sample:
        """Return an image, upright by its EXIF orientation, and its label."""
        path, label = self._items[index]
        return Sample(id=path.relative_to(self._root).as_posix(), image=read_picture(path, upright=True), target=label)


def _class_names(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise UserError(f"{folder} must hold one folder of images per class, but holds none: add them")
    return names
