"""The common part of all segmentation formats: images, their label maps, and the meaning of the values."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from nasmvt.data.class_files import read_classes
from nasmvt.data.dataset import Dataset, Request, class_names, text_digest
from nasmvt.data.folders import FileList, some
from nasmvt.data.label_maps import PixelLabels, Value, consecutive, is_colour, read_label_map
from nasmvt.data.orientation import labels_orientation, turn_array, turn_image, upright_size
from nasmvt.data.pictures import UnreadableImage, look_at, read_stored
from nasmvt.data.report import Look
from nasmvt.data.types import IGNORE, DataInfo, Sample
from nasmvt.errors import UserError

ZERO_AND_VOID = (0, IGNORE)
"""Values that are ignored by default: ADE20K's 0, and the 255 of most other data sets."""
_LOOKED_AT = 8
"""Number of label maps that are checked when a data set is opened."""


class Segmented(Dataset):
    """Images with a label for every pixel.

    Args:
        request: what is opened.
        images: the images.
        maps: the label map of each image.
        labels: the meaning of their values.

    Raises:
        UserError: if the first label maps hold only ignored pixels.
    """

    def __init__(self, request: Request, images: FileList, maps: FileList, labels: PixelLabels) -> None:
        self._images, self._maps, self._labels = images, maps, labels
        self._annotated = request.config.orientation
        self._skip = request.config.skip_unreadable
        self.info = DataInfo(kind="segmentation", classes=labels.classes)
        if request.known is None:
            self._look()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        """Return an upright image and its uint8 label map (H, W) of classes and `IGNORE`."""
        image, orientation = read_stored(self._images[index])
        labels = self._labels.read(self._maps[index])
        turned = self._upright(index, labels, (image.height, image.width), orientation)
        upright = turn_image(image, orientation)
        return Sample(id=self._images.names[index], image=upright, target=torch.from_numpy(turned))

    def look(self, index: int) -> Look:
        """Return what the header of an image states, and its label map; the sizes must agree."""
        path = self._images[index]
        look, labels = look_at(path), self._labels.read(self._maps[index])
        if (
            labels.shape != look.size or self._annotated is not None
        ):  # the orientation matters, and headers may not state it
            self._upright(index, labels, look.size, read_stored(path)[1])
        return look._replace(target=torch.from_numpy(labels))

    def digest(self) -> str:
        """Return a digest over the names and sizes of the images and the label maps."""
        return text_digest(self._images.digest(), self._maps.digest())

    def _upright(self, index: int, labels: np.ndarray, stored: tuple[int, int], orientation: int) -> np.ndarray:
        """Return a label map (H, W) aligned with the upright image.

        Raises:
            UserError: if its size is not that of the image.
        """
        size = upright_size(stored, orientation)
        try:
            turn = labels_orientation(stored, orientation, (labels.shape[0], labels.shape[1]), self._annotated)
            turned = turn_array(labels, turn)
            if turned.shape != size:
                raise ValueError(f"'orientation: {self._annotated}' asks for the other of its two sizes")
        except ValueError as error:
            raise UserError(
                f"an image and its label map must have one size, but {self._images[index]} and {self._maps[index]} "
                f"have not ({error}): make them equal"
            ) from None
        return turned

    def _look(self) -> None:
        """Refuse label maps that hold only ignored pixels, judging by some of them."""
        places = sorted(set(np.linspace(0, len(self) - 1, _LOOKED_AT).round().astype(int).tolist()))
        some_maps = [self._maps[place] for place in places]
        if any((labels != IGNORE).any() for labels in _readable(some_maps, self._labels.read, self._skip)):
            return
        read = partial(read_label_map, colours=self._labels.colours)
        found = sorted({value for map_ in _readable(some_maps, read, self._skip) for value in np.unique(map_).tolist()})
        raise UserError(
            f"label maps must hold classes, but {some_maps[0]} and {len(some_maps) - 1} others hold only ignored "
            f"values ({some([str(value) for value in found])}): set 'ignore', or say by 'labels' what each value "
            f"means, such as {{0: background, 255: object}}"
        )


def meaning_of(
    request: Request,
    maps: Callable[[], FileList],
    *,
    ignore: Collection[Value] = ZERO_AND_VOID,
    usual: Sequence[str] = (),
) -> PixelLabels:
    """Return the meaning of label map values: from the settings, else from a class file, else from the label maps.

    Args:
        request: what is opened.
        maps: gives the label maps of the training split; they are read only if nothing names the classes.
        ignore: values ignored unless the settings or a class say otherwise.
        usual: the classes if neither the settings nor a file name any.

    Raises:
        UserError: if the settings, the file or the label maps are inconsistent.
    """
    config, known = request.config, request.known
    named = read_classes(request.root)
    coloured = {colour: name for name, colour in named.items() if colour is not None}
    meaning = config.labels or coloured
    if meaning:
        found = list(dict.fromkeys(meaning.values()))
        names = class_names(config, found)
        final = {old: old if old in names else new for old, new in zip(found, names, strict=True)}
        renamed = ((value, final[name]) for value, name in meaning.items())
        meaning = dict(sorted(renamed, key=lambda pair: names.index(pair[1])))
        return PixelLabels(meaning, _unmentioned(meaning, ignore) if config.ignore is None else config.ignore)
    listed: Sequence[str] = config.classes or tuple(named) or usual or (known.classes if known else ())
    ignored = ignore if config.ignore is None else config.ignore
    meaning = consecutive(listed or _counted(maps(), ignored, config.skip_unreadable), ignored)
    return PixelLabels(meaning, _unmentioned(meaning, ignore) if config.ignore is None else ignored)


def _unmentioned(meaning: Collection[Value], usual: Collection[Value]) -> Collection[Value]:
    """Return the values that are ignored by default, excluding colours."""
    return () if any(is_colour(value) for value in meaning) else [value for value in usual if value not in meaning]


def _readable(paths: Iterable[Path], read: Callable[[Path], np.ndarray], skip: bool) -> Iterator[np.ndarray]:
    """Yield label maps, with `skip` excluding those that can't be decoded."""
    for path in paths:
        try:
            yield read(path)
        except UnreadableImage:
            if not skip:
                raise


def _counted(maps: FileList, ignore: Collection[Value], skip: bool) -> tuple[str, ...]:
    """Name the classes that the label maps hold, by reading all of them.

    Raises:
        UserError: if their values are not consecutive.
    """
    values: set[int] = set()
    for labels in _readable(maps, read_label_map, skip):
        values.update(np.unique(labels).tolist())
    first = int(0 in ignore)
    classes = sorted(values - set(ignore))
    if not classes or classes[0] < first or classes[-1] - first + 1 > 2 * len(classes):
        shown = some([str(value) for value in sorted(values)], 10)
        raise UserError(
            f"without names the labels must be {first}, {first + 1}, ... (ignored: {some([str(v) for v in ignore])}), "
            f"but those of {maps.root} are {shown}: name the classes in classes.txt, or say by 'labels' what each "
            f"value means, such as {{0: background, 255: object}}"
        )
    return tuple(f"class_{label}" for label in range(1, classes[-1] - first + 2))
