"""How one image is placed: scaled, cropped and flipped, together with its labels.

Shapes: h, w image height and width, H, W canvas height and width, n objects, c channels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

Size = tuple[int, int]
"""Height and width in pixels."""


class Resampling(NamedTuple):
    """How images and their labels are resized."""

    images: InterpolationMode
    antialias: bool
    labels: InterpolationMode


SMOOTH = Resampling(InterpolationMode.BILINEAR, True, InterpolationMode.NEAREST_EXACT)
"""Antialiased, bilinear. Of labels, nearest-exact takes the pixel under the centre, as the resize of the image does."""
CUBIC = SMOOTH._replace(images=InterpolationMode.BICUBIC)
"""Antialiased, bicubic: what published accuracies on ImageNet were measured with."""
OPENCV = Resampling(InterpolationMode.BILINEAR, False, InterpolationMode.NEAREST)
"""As OpenCV resizes, to within a grey level: bilinear without antialiasing; labels are rounded down to a pixel."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """One image is scaled, the part `valid` is cropped at (`top`, `left`), and optionally flipped."""

    size: Size
    """Of the original image."""
    scaled: Size
    """Of the whole image after scaling."""
    valid: Size
    """Of the crop: the part of its canvas that the image covers."""
    top: int = 0
    left: int = 0
    flip: bool = False
    """Whether it is mirrored from left to right."""
    resampling: Resampling = SMOOTH
    """How it is scaled."""
    before: "Geometry | None" = None
    """How the image is placed before, where it is scaled twice; this geometry then places the result."""

    def image(self, image: torch.Tensor) -> torch.Tensor:
        """Place an image uint8 (3, h, w); the result is (3, *valid)."""
        image = image if self.before is None else self.before.image(image)
        scaled = F.resize(image, list(self.scaled), self.resampling.images, antialias=self.resampling.antialias)
        placed: torch.Tensor = self._cut(scaled)
        return placed

    def masks(self, masks: torch.Tensor) -> torch.Tensor:
        """Place uint8 masks or label maps (n, h, w); the result is (n, *valid)."""
        if not len(masks):
            return masks.new_zeros((0, *self.valid))
        masks = masks if self.before is None else self.before.masks(masks)
        scaled = F.resize_image(masks, list(self.scaled), interpolation=self.resampling.labels)
        placed: torch.Tensor = self._cut(scaled)
        return placed

    def boxes(self, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Place boxes (n, 4) xyxy.

        Returns:
            Boxes (n, 4) clipped to the crop, and the fraction (n,) of each box's area that is left.
        """
        given, left = self.size, torch.ones(len(boxes))
        if self.before is not None:
            given, (boxes, left) = self.before.valid, self.before.boxes(boxes)
        wrapped = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=given)
        scaled = F.resize(wrapped, list(self.scaled))
        placed = F.clamp_bounding_boxes(self._cut(scaled)).as_subclass(torch.Tensor)
        whole = sides(scaled.as_subclass(torch.Tensor)).prod(dim=1)
        return placed, (left * sides(placed).prod(dim=1) / whole).nan_to_num()

    def _cut(self, value: Any) -> Any:
        """Crop a scaled image, mask or set of boxes, and flip it if required."""
        value = F.crop(value, self.top, self.left, *self.valid)
        return F.horizontal_flip(value) if self.flip else value


Balanced = Callable[[Geometry, float], bool]
"""Whether no class has more than a given part of what a geometry leaves of an image."""


def always(geometry: Geometry, most: float) -> bool:
    """Take any crop for balanced."""
    return True


class Placement(Protocol):
    """How images are put on the canvas of a batch; random numbers come from torch's global generator."""

    def place(self, size: Size, balanced: Balanced = always) -> Geometry:
        """Return the placement of an image of a given size.

        Args:
            size: of the image.
            balanced: tells which crops a placement that draws them takes.
        """
        ...

    def canvas(self, sizes: Sequence[Size]) -> Size:
        """Return the canvas of a batch of placed images of some sizes."""
        ...


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Every image on one canvas: scaled to fit it, keeping its aspect ratio, times a random factor.

    Images larger than the canvas are cropped at random, smaller ones are put at the top left.
    """

    size: Size
    """Of the canvas."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Range of the factor."""
    hflip: float = 0.0
    """Probability of a horizontal flip."""

    def place(self, size: Size, balanced: Balanced = always) -> Geometry:
        """Return the placement of an image of a given size."""
        flip, factor, top, left = torch.rand(4).tolist()
        scaled = fit_size(size, self.size, self.scale[0] + factor * (self.scale[1] - self.scale[0]))
        valid = (min(scaled[0], self.size[0]), min(scaled[1], self.size[1]))
        return Geometry(
            size=size,
            scaled=scaled,
            valid=valid,
            top=round(top * (scaled[0] - valid[0])),
            left=round(left * (scaled[1] - valid[1])),
            flip=flip < self.hflip,
        )

    def canvas(self, sizes: Sequence[Size]) -> Size:
        """Return the canvas, whatever the sizes of the images."""
        return self.size


def fit_size(size: Size, canvas: Size, factor: float = 1.0) -> Size:
    """Return the height and width of an image scaled to fit `canvas`, keeping its aspect ratio, times `factor`."""
    scale = min(canvas[0] / size[0], canvas[1] / size[1]) * factor
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def pad(image: torch.Tensor, canvas: Size, value: torch.Tensor) -> torch.Tensor:
    """Put (c, h, w) at the top left of a canvas (c, H, W) filled with `value`, which broadcasts to it."""
    if image.shape[1:] == canvas:
        return image
    padded = value.expand(len(image), *canvas).clone()
    padded[:, : image.shape[1], : image.shape[2]] = image
    return padded


def sides(boxes: torch.Tensor) -> torch.Tensor:
    """Return the widths and heights (n, 2) of boxes (n, 4) xyxy."""
    return boxes[:, 2:] - boxes[:, :2]
