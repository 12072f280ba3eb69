"""Placements of published protocols: the shorter side scaled to a length, and a crop of the centre.

Shapes: h, w image height and width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from nasmvt.data.geometry import CUBIC, OPENCV, Geometry, Resampling, Size


@dataclass(frozen=True, kw_only=True)
class KeepRatio:
    """The shorter side is scaled to a length, unless the longer one became too long; the aspect is kept.

    This is mmdetection's and mmsegmentation's rule for a scale (long, short).
    """

    short: int
    """Length of the shorter side in pixels."""
    long: int | None = None
    """Longest side; None: any."""
    divisor: int = 1
    """Sides of the canvas are multiples of it."""
    stretch: bool = False
    """Whether the image is resized, once more, to multiples of `divisor`; else it is padded to them."""
    flip: bool = False
    """Whether it is mirrored from left to right."""
    resampling: Resampling = OPENCV

    def place(self, size: Size) -> Geometry:
        """Return how an image of a size is placed."""
        scaled = keep_ratio(size, self.short, self.long)
        final = up_to_multiple(scaled, self.divisor) if self.stretch else scaled
        return Geometry(
            size=size,
            scaled=final,
            valid=final,
            flip=self.flip,
            resampling=self.resampling,
            first=scaled if final != scaled else None,
        )

    def canvas(self, sizes: Sequence[Size]) -> Size:
        """Return the canvas of a batch: that of its largest images, rounded up to multiples of the divisor."""
        return up_to_multiple(largest(sizes), self.divisor)


@dataclass(frozen=True, kw_only=True)
class CentreCrop:
    """The image is scaled until it covers a size, of which the centre is cut out."""

    size: Size
    """Of the crop."""
    ratio: float
    """Sides of the crop as a part of those that the image is scaled to cover."""
    resampling: Resampling = CUBIC

    def place(self, size: Size) -> Geometry:
        """Return how an image of a size is placed."""
        covered = (int(self.size[0] / self.ratio), int(self.size[1] / self.ratio))
        if covered[0] * size[1] > covered[1] * size[0]:
            scaled = (covered[0], max(int(covered[0] * size[1] / size[0]), covered[1]))
        else:
            scaled = (max(int(covered[1] * size[0] / size[1]), covered[0]), covered[1])
        top, left = (round((scaled[i] - self.size[i]) / 2) for i in (0, 1))
        return Geometry(size=size, scaled=scaled, valid=self.size, top=top, left=left, resampling=self.resampling)

    def canvas(self, sizes: Sequence[Size]) -> Size:
        """Return the size of the crop."""
        return self.size


def keep_ratio(size: Size, short: float, long: float | None) -> Size:
    """Return the height and width of an image of a size whose shorter side becomes `short`, the longer at most `long`.

    The sides are rounded as mmcv's `imrescale` does it.
    """
    factor = short / min(size) if long is None else min(long / max(size), short / min(size))
    return max(int(size[0] * factor + 0.5), 1), max(int(size[1] * factor + 0.5), 1)


def up_to_multiple(size: Size, divisor: int) -> Size:
    """Round a height and a width up to multiples of a divisor."""
    return -(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor


def largest(sizes: Sequence[Size]) -> Size:
    """Return the largest height and the largest width."""
    return max(height for height, _ in sizes), max(width for _, width in sizes)
