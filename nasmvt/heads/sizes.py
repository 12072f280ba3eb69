"""How large the images of a batch are on their common canvas."""

from collections.abc import Iterable
from typing import Self

Size = tuple[int, int]


class Sizes(tuple[Size, ...]):
    """Height and width of each image without padding, and of the canvas that they lie on."""

    canvas: Size

    def __new__(cls, sizes: Iterable[Size], canvas: Size) -> Self:
        """Return the sizes of images on a canvas."""
        made = super().__new__(cls, sizes)
        made.canvas = canvas
        return made
