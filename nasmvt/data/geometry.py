"""Where an image lies on its canvas, and one draw of flip, scale and crop for an image and its labels.

Shapes: H, W canvas height and width, h, w image height and width, n objects, c channels.
"""

from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from nasmvt.data.types import IGNORE

_MIN_SIDE = 1.0
"""Least width and height in canvas pixels of an object that is trained on."""
_MIN_LEFT = 0.1
"""Least part of an object's box that a crop must leave."""


def fit_size(size: tuple[int, int], canvas: tuple[int, int], factor: float = 1.0) -> tuple[int, int]:
    """Return the height and width of an image scaled to fit `canvas`, keeping its aspect, times `factor`."""
    scale = min(canvas[0] / size[0], canvas[1] / size[1]) * factor
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def pad(image: torch.Tensor, canvas: tuple[int, int], value: torch.Tensor) -> torch.Tensor:
    """Put (c, h, w) at the top left of a canvas (c, H, W) filled with `value`, which broadcasts to it."""
    padded = value.expand(len(image), *canvas).clone()
    padded[:, : image.shape[1], : image.shape[2]] = image
    return padded


class Geometry:
    """One draw of flip, scale and crop of an image of `size`, to be applied to it and its labels alike.

    It draws from torch's global generator.

    Args:
        size: height and width of the image.
        canvas: height and width of the canvas.
        scale: range of the scale, as a factor of the one that just fits the canvas.
        hflip: probability of a horizontal flip.
    """

    def __init__(
        self, size: tuple[int, int], canvas: tuple[int, int], scale: tuple[float, float], hflip: float
    ) -> None:
        flip, factor, top, left = torch.rand(4).tolist()
        self.canvas = canvas
        self.flip = flip < hflip
        self.size = size
        self.scaled = fit_size(size, canvas, scale[0] + factor * (scale[1] - scale[0]))
        self.valid = (min(self.scaled[0], canvas[0]), min(self.scaled[1], canvas[1]))
        """Height and width that the image covers on the canvas."""
        self.top = round(top * (self.scaled[0] - self.valid[0]))
        self.left = round(left * (self.scaled[1] - self.valid[1]))

    def image(self, image: torch.Tensor) -> torch.Tensor:
        """Scale (bilinear, antialiased), cut and flip an image uint8 (3, h, w); it is not padded."""
        moved: torch.Tensor = self._cut(F.resize(image, list(self.scaled), antialias=True))
        return moved

    def labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Move a label map uint8 (h, w) to the canvas, uint8 (H, W), with `IGNORE` on the padding."""
        return self._masks(labels[None], IGNORE)[0]

    def objects(self, target: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Move the objects of a detection sample to the canvas.

        Crowds, empty boxes, and objects of which the crop leaves too little are dropped. Where there are
        masks, a box is drawn anew around what is left of its mask.

        Returns:
            `boxes` (n, 4) float32 xyxy, `labels` (n,) int64 and, if given, `masks` (n, H, W) bool.
        """
        kept = ~target["crowd"] & (_sides(target["boxes"]).amin(dim=1) > 0)
        boxes = tv_tensors.BoundingBoxes(target["boxes"][kept], format="XYXY", canvas_size=self.size)
        scaled = F.resize(boxes, list(self.scaled))
        moved = F.clamp_bounding_boxes(self._cut(scaled)).as_subclass(torch.Tensor)
        area = _sides(scaled.as_subclass(torch.Tensor)).prod(dim=1)
        seen = _sides(moved).prod(dim=1) >= _MIN_LEFT * area
        objects = {"boxes": moved, "labels": target["labels"][kept]}
        if "masks" in target:
            objects["masks"] = self._masks(target["masks"][kept].dense().to(torch.uint8), 0).bool()
            seen = seen & objects["masks"].flatten(1).any(dim=1)
        objects = {name: value[seen] for name, value in objects.items()}
        if "masks" in objects:
            objects["boxes"] = mask_boxes(objects["masks"])
        large = _sides(objects["boxes"]).amin(dim=1) >= _MIN_SIDE
        return {name: value[large] for name, value in objects.items()}

    def _cut(self, value: Any) -> Any:
        """Cut the chosen part out of a scaled image, mask or set of boxes, and flip it."""
        value = F.crop(value, self.top, self.left, *self.valid)
        return F.horizontal_flip(value) if self.flip else value

    def _masks(self, masks: torch.Tensor, padding: int) -> torch.Tensor:
        """Move uint8 masks (n, h, w) to the canvas.

        nearest-exact takes the pixel under the centre, as the resize of the image does; plain nearest
        would shift the labels by up to half a pixel of the original.
        """
        if not len(masks):
            return masks.new_zeros((0, *self.canvas))
        scaled = F.resize_image(masks, list(self.scaled), interpolation=InterpolationMode.NEAREST_EXACT)
        return pad(self._cut(scaled), self.canvas, torch.tensor(padding, dtype=torch.uint8))


def mask_boxes(masks: torch.Tensor) -> torch.Tensor:
    """Return the boxes (n, 4) float32 xyxy around masks (n, H, W), from pixel edge to pixel edge."""
    boxes: torch.Tensor = masks_to_boxes(masks)
    return boxes + torch.tensor([0.0, 0.0, 1.0, 1.0])


def _sides(boxes: torch.Tensor) -> torch.Tensor:
    return boxes[:, 2:] - boxes[:, :2]
