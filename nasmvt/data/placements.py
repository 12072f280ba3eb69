"""Placements of published trainings and tests: a length of the shorter side, and crops."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from nasmvt.data.geometry import CUBIC, OPENCV, Balanced, Geometry, Resampling, Size, always


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
    truncate: bool = False
    """Whether the longer side is rounded down (DETR)."""
    flip: bool = False
    """Whether it is mirrored from left to right."""
    resampling: Resampling = OPENCV

    def place(self, size: Size, balanced: Balanced = always) -> Geometry:
        """Return the placement of an image of a given size."""
        scaled = keep_ratio(size, self.short, self.long, truncate=self.truncate)
        before, final = None, up_to_multiple(scaled, self.divisor) if self.stretch else scaled
        if final != scaled:
            before = Geometry(size=size, scaled=scaled, valid=scaled, resampling=self.resampling)
        return Geometry(size=size, scaled=final, valid=final, flip=self.flip, resampling=self.resampling, before=before)

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

    def place(self, size: Size, balanced: Balanced = always) -> Geometry:
        """Return the placement of an image of a given size."""
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


@dataclass(frozen=True, kw_only=True)
class RandomShortSide:
    """The shorter side is scaled to one of several lengths, for half of the images after a random crop if so wished.

    The variant with crops is that of DETR (arXiv:2005.12872, appendix A.4).
    """

    shorts: Sequence[int]
    """Lengths of the shorter side in pixels."""
    long: int | None
    """Longest side; None: any."""
    divisor: int
    """Sides of the canvas are multiples of it."""
    crop_shorts: Sequence[int] = ()
    """Lengths of the shorter side before a crop; none: nothing is cropped."""
    crop_long: int | None = None
    """Longest side before a crop; None: any."""
    crop_sides: tuple[int, int] = (384, 600)
    """Least and greatest side of a crop."""
    truncate: bool = False
    """Whether longer sides are rounded down (DETR)."""
    hflip: float = 0.0
    """Probability of a horizontal flip."""
    resampling: Resampling = OPENCV

    def place(self, size: Size, balanced: Balanced = always) -> Geometry:
        """Return the placement of an image of a given size."""
        flip, cropped = torch.rand(2).tolist()
        before = self._crop(size) if self.crop_shorts and cropped < 0.5 else None
        given = size if before is None else before.valid
        scaled = keep_ratio(given, _one(self.shorts), self.long, truncate=self.truncate)
        return Geometry(
            size=size,
            scaled=scaled,
            valid=scaled,
            flip=flip < self.hflip,
            resampling=self.resampling,
            before=before,
        )

    def canvas(self, sizes: Sequence[Size]) -> Size:
        """Return the canvas of a batch: that of its largest images, rounded up to multiples of the divisor."""
        return up_to_multiple(largest(sizes), self.divisor)

    def _crop(self, size: Size) -> Geometry:
        scaled = keep_ratio(size, _one(self.crop_shorts), self.crop_long, truncate=self.truncate)
        least, most = self.crop_sides
        height, width = (_between(min(side, least), min(side, most)) for side in scaled)
        return _cropped(Geometry(size=size, scaled=scaled, valid=(height, width), resampling=self.resampling))


@dataclass(frozen=True, kw_only=True)
class RandomCrop:
    """The image is scaled by a random factor, its aspect kept, and a random part of it is cut out.

    Where one class fills too much of a crop another one is drawn, ten times at most: mmsegmentation's rule.
    """

    size: Size
    """Of the crop; what is smaller is padded to it."""
    short: int
    """Length of the shorter side in pixels at a factor of 1."""
    long: int | None
    """Longest side at a factor of 1; None: any."""
    factor: tuple[float, float]
    """Range of the factor."""
    most: float
    """Greatest part of the pixels that count which one class may have; 1 takes every crop."""
    hflip: float = 0.0
    """Probability of a horizontal flip."""
    resampling: Resampling = OPENCV

    def place(self, size: Size, balanced: Balanced = always) -> Geometry:
        """Return the placement of an image of a given size."""
        flip, drawn = torch.rand(2).tolist()
        factor = self.factor[0] + drawn * (self.factor[1] - self.factor[0])
        long = None if self.long is None else int(self.long * factor)
        scaled = keep_ratio(size, max(int(self.short * factor), 1), long)
        valid = (min(scaled[0], self.size[0]), min(scaled[1], self.size[1]))
        whole = Geometry(size=size, scaled=scaled, valid=valid, flip=flip < self.hflip, resampling=self.resampling)
        chosen = _cropped(whole)
        if self.most < 1:
            for _ in range(10):
                if balanced(chosen, self.most):
                    break
                chosen = _cropped(whole)
        return chosen

    def canvas(self, sizes: Sequence[Size]) -> Size:
        """Return the size of the crop."""
        return self.size


def _cropped(geometry: Geometry) -> Geometry:
    """Draw where the part that a geometry cuts out lies."""
    top, left = (_between(0, whole - part) for whole, part in zip(geometry.scaled, geometry.valid, strict=True))
    return replace(geometry, top=top, left=left)


def _between(least: int, most: int) -> int:
    """Draw a whole number, both ends included."""
    return int(torch.randint(least, most + 1, (1,)))


def _one(values: Sequence[int]) -> int:
    return values[_between(0, len(values) - 1)]


def keep_ratio(size: Size, short: float, long: float | None, *, truncate: bool = False) -> Size:
    """Return the height and width of an image of a size whose shorter side becomes `short`, the longer at most `long`.

    The sides are rounded as mmcv's `imrescale` does it; with `truncate` as DETR does: a shorter side that gives way to
    the nearest number, the longer one down.
    """
    if truncate:
        least, most = min(size), max(size)
        if long is not None and most / least * short > long:
            short = round(long * least / most)
        sides = int(short), int(short * most / least)
        return sides if size[0] <= size[1] else (sides[1], sides[0])
    factor = short / min(size) if long is None else min(long / max(size), short / min(size))
    return max(int(size[0] * factor + 0.5), 1), max(int(size[1] * factor + 0.5), 1)


def up_to_multiple(size: Size, divisor: int) -> Size:
    """Round a height and a width up to multiples of a divisor."""
    return -(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor


def largest(sizes: Sequence[Size]) -> Size:
    """Return the largest height and the largest width."""
    return max(height for height, _ in sizes), max(width for _, width in sizes)
