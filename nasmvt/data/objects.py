"""The objects of many images, in arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from nasmvt.data.masks import Part
from nasmvt.data.names import Blobs

_FARTHEST = 1e9
"""Coordinates farther outside of an image, in pixels, are clipped to this."""

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1."""


@dataclass(frozen=True, kw_only=True)
class Objects:
    """m objects of n images, sorted by their image: those of image i are `starts[i]` to `starts[i + 1]`."""

    starts: np.ndarray
    """(n + 1,) int64."""
    boxes: np.ndarray
    """(m, 4) float32: x0, y0, x1, y1; may lie outside of the image, and be empty or turned (x1 < x0)."""
    places: np.ndarray
    """(m,) int32: the index of each object's class among the classes of the annotations."""
    crowds: np.ndarray
    """(m,) bool: whether it stands for a group of objects that are not separated."""
    segmentations: Blobs
    """JSON of each object's polygons or run lengths; empty if it has none."""
    relative: bool = False
    """Whether boxes and polygons are fractions of the width and height, not pixels."""

    def of(self, image: int) -> slice:
        """Return the slice of an image's objects in the arrays."""
        return slice(int(self.starts[image]), int(self.starts[image + 1]))

    def clipped(self, image: int, size: tuple[int, int]) -> np.ndarray:
        """Return an image's boxes (n, 4) in pixels, clipped to `size` (height, width); may be empty (x0 == x1)."""
        sides = np.array([size[1], size[0]], dtype=np.float32)
        boxes = self.boxes[self.of(image)]
        if self.relative:
            boxes = boxes * np.tile(sides, 2)
        low = np.clip(boxes[:, :2], 0, sides)
        return np.concatenate([low, np.clip(boxes[:, 2:], low, sides)], axis=1)

    def parts(self, image: int, size: tuple[int, int], boxes: np.ndarray) -> list[Part]:
        """Return the masks of an image's objects for `ObjectMasks`; an object without one is masked by its box."""
        pairs = zip(self.segmentations[self.of(image)], boxes.tolist(), strict=True)
        parts = [msgspec.json.decode(text) if text else tuple(box) for text, box in pairs]
        if not self.relative:
            return parts
        sides = (size[1], size[0])
        return [
            [[value * sides[i % 2] for i, value in enumerate(polygon)] for polygon in part]
            if isinstance(part, list)
            else part
            for part in parts
        ]

    def without_mask(self) -> np.ndarray:
        """Return the indices of the objects, excluding crowds, that have no segmentation."""
        return np.flatnonzero((self.segmentations.lengths() == 0) & ~self.crowds)

    def image_of(self, item: int) -> int:
        """Return the index of the image of an object."""
        return int(np.searchsorted(self.starts, item, side="right")) - 1

    def count(self) -> int:
        """Return the number of objects, excluding crowds."""
        return int((~self.crowds).sum())


@dataclass
class ObjectList:
    """Collects objects in any order of their images."""

    owners: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    crowds: list[bool] = field(default_factory=list)
    segmentations: list[Any] = field(default_factory=list)

    def add(
        self, image: int, place: int, box: Sequence[float], *, crowd: bool = False, segmentation: Any = b""
    ) -> None:
        """Add an object.

        Args:
            image: the index of its image.
            place: the index of its class.
            box: x0, y0, x1, y1.
            crowd: whether it is a crowd.
            segmentation: JSON of its polygons or run lengths, if it has any.
        """
        x0, y0, x1, y1 = (min(max(value, -_FARTHEST), _FARTHEST) for value in box)
        self.owners.append(image)
        self.places.append(place)
        self.boxes.append((x0, y0, x1, y1))
        self.crowds.append(crowd)
        self.segmentations.append(segmentation)

    def sorted(self, images: int, *, relative: bool = False) -> Objects:
        """Return the objects as arrays, sorted by image; the order within an image is kept."""
        owners = np.array(self.owners, dtype=np.int64)
        order = np.argsort(owners, kind="stable")
        return Objects(
            starts=np.searchsorted(owners[order], np.arange(images + 1)),
            boxes=np.array(self.boxes, dtype=np.float32).reshape(-1, 4)[order],
            places=np.array(self.places, dtype=np.int32)[order],
            crowds=np.array(self.crowds, dtype=bool)[order],
            segmentations=Blobs(self.segmentations[item] for item in order.tolist()),
            relative=relative,
        )
