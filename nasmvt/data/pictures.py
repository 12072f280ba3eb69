"""Reading one image file: the same pixels for training, evaluation, search and prediction."""

import errno
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from nasmvt.data.orientation import orientation_of, turn_image
from nasmvt.data.report import Look
from nasmvt.errors import UserError

_DEPTHS = (8, 12, 16, 24, 32)
"""Usual bit depths of greyscale images from cameras and scanners."""
_REMEDY = "replace it or set skip_unreadable"
_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Errors caused by the machine, not by the file."""


class UnreadableImage(UserError):
    """An image file that can't be decoded."""


def read_picture(path: Path, *, upright: bool = True) -> Image.Image:
    """Read an image as 8-bit RGB; of an animation, the first frame.

    Args:
        path: the file.
        upright: turn the image by its EXIF orientation; False gives the pixels as they are stored.

    Raises:
        UnreadableImage: if it can't be decoded, naming the file.
    """
    image, orientation = read_stored(path)
    return turn_image(image, orientation) if upright else image


def read_stored(path: Path) -> tuple[Image.Image, int]:
    """Read an image as 8-bit RGB, as stored, and its EXIF orientation.

    Raises:
        UnreadableImage: if it can't be decoded, naming the file.
    """
    with opened(path, "image", _REMEDY) as image:
        return to_rgb(image), orientation_of(image)


def look_at(path: Path) -> Look:
    """Return what the header of an image states; pixels are not decoded.

    Raises:
        UnreadableImage: if it is not an image, naming the file.
    """
    with opened(path, "image", _REMEDY, decode=False) as image:
        return Look(size=(image.height, image.width), animated=_is_animated(image))


def _is_animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # noqa: BLE001  (a damaged second frame may raise nearly anything; the first one is used)
        return False


@contextmanager
def opened(path: Path, what: str, remedy: str, *, decode: bool = True) -> Iterator[Image.Image]:
    """Open an image file.

    Args:
        path: the file.
        what: what to call it in errors.
        remedy: what to do if it can't be decoded.
        decode: whether to read the pixels too.

    Raises:
        UnreadableImage: if it can't be decoded, naming the file.
        UserError: if the machine is out of memory or file handles.
    """
    try:
        # Pillow's warnings name no file and add nothing to the errors.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not stat.S_ISREG(path.stat().st_mode):
                raise OSError("it is a folder, a pipe or a device")  # of which some never end
            with Image.open(path) as image:
                if decode:
                    image.load()
                yield image
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  (damaged files make Pillow's readers raise nearly anything)
        if isinstance(error, OSError) and error.errno in _SHORTAGES:
            raise UserError(f"the {what} {path} can't be opened ({error.strerror}): give the process more") from None
        detail = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, Image.DecompressionBombError):
            remedy = f"cut it into tiles, or {remedy}"
        raise UnreadableImage(f"the {what} {path} can't be decoded ({detail}): {remedy}") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Return any image as 8-bit RGB; transparency is dropped.

    Grey values of more than 8 bits are scaled by the smallest usual depth (12, 16, ...) that holds the largest of
    them. Floats in 0..1 are scaled to 0..255, others are treated as integers. Negative values have no such scale: they
    are stretched from the smallest to the largest.

    Raises:
        ValueError: if it holds no finite value, or colours that Pillow can't convert.
    """
    if image.mode == "RGB":
        return image
    if image.mode[0] in "IF":
        return Image.fromarray(_to_bytes(np.asarray(image))).convert("RGB")
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.mode == "PA" or (image.mode == "P" and "transparency" in image.info):
        image = image.convert("RGBA")
    return image.convert("RGB")


def _to_bytes(grey: np.ndarray) -> np.ndarray:
    """Scale grey values (H, W) of any type to uint8, see `to_rgb`."""
    finite = np.isfinite(grey)
    if not finite.any():
        raise ValueError("it holds no finite value")
    values = np.where(finite, grey, 0).astype(np.float64)
    low, high = values.min(), values.max()
    if low < 0:
        scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    elif grey.dtype.kind == "f" and high <= 1:
        scaled = values * 255
    else:
        depth = next((bits for bits in _DEPTHS if high < 2**bits), None)
        scaled = values * (255 / high) if depth is None else values * 2.0 ** (8 - depth)
    return np.floor(scaled).astype(np.uint8)
