"""Label maps: images whose values, or colours, encode the class of every pixel.

Shapes: H, W height and width of the label map, K classes.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from nasmvt.data.folders import some
from nasmvt.data.orientation import orientation_of, turn_array
from nasmvt.data.pictures import opened
from nasmvt.data.types import IGNORE
from nasmvt.errors import UserError

Value = int | str
"""A value of a label map, or a colour "#rrggbb"."""

_UNKNOWN = -1


def read_label_map(path: Path, *, colours: bool = False) -> np.ndarray:
    """Read a label map, turned upright if it has an EXIF orientation of its own.

    Args:
        path: the file.
        colours: whether labels are encoded by colour, including palette colours; greyscale images always hold values.

    Returns:
        Integers (H, W) as stored in the file; a colour is one number, 0xrrggbb.

    Raises:
        UnreadableImage: if it can't be decoded, naming the file.
        UserError: if it has several channels that differ, or values that are not integers.
    """
    with opened(path, "label map", "replace it or set skip_unreadable") as image:
        orientation = orientation_of(image)
        if colours and image.mode not in ("1", "L") and image.mode[0] not in "IF":
            red, green, blue = np.array(image.convert("RGB")).astype(np.int32).transpose(2, 0, 1)
            return turn_array(red << 16 | green << 8 | blue, orientation)
        labels = np.array(image.convert("RGB") if image.mode in ("RGBA", "RGBX", "LA") else image)
    if labels.ndim == 3 and (labels == labels[..., :1]).all():
        labels = labels[..., 0]  # greyscale, saved as a colour image
    if labels.dtype.kind == "f" and (labels == np.floor(labels)).all():
        labels = labels.astype(np.int64)
    if labels.ndim != 2 or labels.dtype.kind not in "uib":
        raise UserError(
            f"a label map must hold one whole number per pixel, but {path} holds {labels.dtype} of the shape "
            f"{labels.shape}: store one label per pixel, or say by 'labels' which colour is which class"
        )
    return turn_array(labels.astype(np.int64) if labels.dtype.kind != "u" else labels, orientation)


class PixelLabels:
    """The meaning of the values of label maps: a class, or ignored.

    Args:
        meaning: the class of each value or colour.
        ignore: values, colours or class names that count neither in the loss nor in the metric.

    Raises:
        UserError: if there are more classes than labels can encode, or an ignored name is not a class.
    """

    def __init__(self, meaning: Mapping[Value, str], ignore: Collection[Value]) -> None:
        self.classes = tuple(dict.fromkeys(name for name in meaning.values() if name not in ignore))
        """The classes that are not ignored, in the order of their labels."""
        if len(self.classes) > IGNORE:
            raise UserError(f"label maps hold at most {IGNORE} classes, but have {len(self.classes)}: merge classes")
        unknown = [
            name
            for name in ignore
            if isinstance(name, str) and not is_colour(name) and name not in set(meaning.values())
        ]
        if unknown:
            names = some(list(dict.fromkeys(meaning.values())), 10)
            raise UserError(
                f"'ignore' may name values, colours and the classes {names}, but names {some(unknown)}: fix it"
            )
        self.colours = any(is_colour(value) for value in meaning)
        self._table = np.full(2**24 if self.colours else 2**16, _UNKNOWN, dtype=np.int16)
        label = {name: number for number, name in enumerate(self.classes)}
        for value, name in meaning.items():
            self._table[_code(value)] = label.get(name, IGNORE)
        for value in ignore:
            if isinstance(value, int) or is_colour(value):
                self._table[_code(value)] = IGNORE

    def read(self, path: Path) -> np.ndarray:
        """Read a label map as uint8 (H, W) of labels and `IGNORE`.

        Raises:
            UnreadableImage: if it can't be decoded.
            UserError: if it holds a value without a meaning, naming the value and the file.
        """
        values = read_label_map(path, colours=self.colours)
        if values.min(initial=0) >= 0 and values.max(initial=0) < len(self._table):
            labels = self._table[values]
            if labels.min(initial=0) != _UNKNOWN:
                return labels.astype(np.uint8)
            values = values[labels == _UNKNOWN]
        else:
            values = values[(values < 0) | (values >= len(self._table))]
        strange = [f"#{value:06x}" if self.colours else str(value) for value in np.unique(values).tolist()]
        raise UserError(
            f"the label map {path} holds {'the colour' if self.colours else 'the label'} {some(strange)}, which is "
            f"neither one of the {len(self.classes)} classes nor ignored: name every class, fix the map, or "
            f"add it to 'ignore'"
        )


def is_colour(value: Value) -> bool:
    """Return whether a value is a colour, "#rrggbb"."""
    return isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value) is not None


def consecutive(names: Sequence[str], ignore: Collection[Value]) -> dict[Value, str]:
    """Return the class of each value where values are consecutive: from 0 on, or from 1 on if 0 is ignored."""
    return dict(enumerate(names, start=int(0 in ignore)))


def _code(value: Value) -> int:
    return int(value[1:], 16) if isinstance(value, str) else value
