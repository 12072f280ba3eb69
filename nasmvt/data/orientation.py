"""Turning stored pixels and their labels upright by the EXIF orientation.

An orientation is EXIF's number: 1 is upright; 2 and 4 are mirrored, 3 is upside down; 5 to 8 are rotated by 90
degrees, so that height and width are swapped.

Shapes: n boxes, H, W height and width of the stored image.
"""

from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

UPRIGHT = 1
Annotated = Literal["upright", "stored"]
"""Which pixels labels were drawn on."""

_TAG = 0x0112
_TRANSPOSED, _ROWS_TURNED, _COLUMNS_TURNED = {5, 6, 7, 8}, {3, 4, 7, 8}, {2, 3, 6, 7}
"""To turn upright: first transpose, then reverse the rows, then the columns."""


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened image; 1 if there is none or it is invalid."""
    try:
        value: Any = image.getexif().get(_TAG, UPRIGHT)
    except Exception:  # noqa: BLE001  (a damaged block may raise anything; the pixels are intact)
        return UPRIGHT
    return value if isinstance(value, int) and 1 <= value <= 8 else UPRIGHT


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return the height and width of the upright image from those of the stored one."""
    return (size[1], size[0]) if orientation in _TRANSPOSED else size


def turn_image(image: Image.Image, orientation: int) -> Image.Image:
    """Return an image turned upright."""
    steps = (
        (_TRANSPOSED, Image.Transpose.TRANSPOSE),
        (_ROWS_TURNED, Image.Transpose.FLIP_TOP_BOTTOM),
        (_COLUMNS_TURNED, Image.Transpose.FLIP_LEFT_RIGHT),
    )
    for orientations, step in steps:
        if orientation in orientations:
            image = image.transpose(step)
    return image


def turn_array(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return an array (H, W, ...) turned upright."""
    if orientation in _TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in _ROWS_TURNED:
        pixels = pixels[::-1]
    if orientation in _COLUMNS_TURNED:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def turn_boxes(boxes: torch.Tensor, size: tuple[int, int], orientation: int) -> torch.Tensor:
    """Return boxes (n, 4) xyxy on a stored image of `size` (H, W) as boxes on the upright one."""
    height, width = upright_size(size, orientation)
    x0, y0, x1, y1 = boxes.unbind(1)
    if orientation in _TRANSPOSED:
        x0, y0, x1, y1 = y0, x0, y1, x1
    if orientation in _ROWS_TURNED:
        y0, y1 = height - y1, height - y0
    if orientation in _COLUMNS_TURNED:
        x0, x1 = width - x1, width - x0
    return torch.stack((x0, y0, x1, y1), dim=1)


def labels_orientation(
    stored: tuple[int, int], orientation: int, labelled: tuple[int, int], annotated: Annotated | None
) -> int:
    """Return the orientation by which labels must be turned to lie on the upright image.

    Args:
        stored: height and width of the stored image.
        orientation: the image's.
        labelled: height and width of the image as stated by its labels.
        annotated: on which pixels labels were drawn; None infers it from `labelled`, and assumes upright where
            both sizes are equal.

    Raises:
        ValueError: if the labels state a size that is neither the stored nor the upright one.
    """
    upright = upright_size(stored, orientation)
    if labelled not in (stored, upright):
        seen = f"{stored[1]}x{stored[0]}"
        if orientation != UPRIGHT:
            seen += f" as stored and {upright[1]}x{upright[0]} upright (EXIF orientation {orientation})"
        raise ValueError(f"it is {seen}, and not {labelled[1]}x{labelled[0]}")
    on_stored = labelled != upright if annotated is None else annotated == "stored"
    return orientation if on_stored else UPRIGHT
