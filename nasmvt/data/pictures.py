"""Reading one image file."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from nasmvt.errors import UserError

_BROKEN = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)
"""What Pillow raises on files that are missing, cut off, damaged or absurdly large."""


class UnreadableImage(UserError):
    """An image file that can't be decoded."""


def read_picture(path: Path, *, upright: bool = False) -> Image.Image:
    """Read an image as 8-bit RGB.

    Args:
        path: the file.
        upright: turn the image as its EXIF orientation says. Only where no label lies in its pixels:
            boxes and masks are drawn on the pixels as they are stored.

    Raises:
        UnreadableImage: if it can't be decoded, naming the file.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            if upright:
                ImageOps.exif_transpose(picture, in_place=True)
            return to_rgb(picture)
    except _BROKEN as error:
        detail = " ".join(str(error).split())
        raise UnreadableImage(
            f"the image {path} can't be decoded ({detail}): replace it or set skip_unreadable"
        ) from None


def to_rgb(picture: Image.Image) -> Image.Image:
    """Return any image as 8-bit RGB; transparency is dropped, 16-bit grey keeps its high byte."""
    if picture.mode == "RGB":
        return picture.copy()
    if picture.mode.startswith("I"):
        grey = np.asarray(picture).astype(np.int64).clip(0, 2**16 - 1) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return picture.convert("RGB")
