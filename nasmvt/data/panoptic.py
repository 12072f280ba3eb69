"""Targets of panoptic segmentation: segments, each of a class that is of things (countable) or of stuff.

Source: Panoptic Segmentation (arXiv:1801.00868); COCO's format.

Shapes: n objects, H, W canvas height and width, h, w image height and width.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nasmvt.data.detection import mask_boxes
from nasmvt.data.geometry import Geometry, Size, pad, sides
from nasmvt.data.report import LabelCounts, count_indices
from nasmvt.data.targets import TARGETS, Targets
from nasmvt.data.types import IGNORE

VOID = 0
"""The id of pixels of no segment."""
_MIN_SIDE = 1.0
"""Least width and height in pixels of an object that is trained on."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One segment of an image."""

    id: int
    """Its value in the map, unlike those of the others."""
    label: int
    """Its class."""
    thing: bool
    """Whether the class is of things."""
    area: int
    """Pixels, as the annotations state them."""
    crowd: bool = False
    """Whether it stands for a group of objects that are not separated."""
    flat: bool = False
    """Whether the annotations give it no area, or a box narrower than a pixel: it is not trained on then."""


@dataclass(frozen=True, kw_only=True)
class Segments:
    """The segments of an image, their map without loss in a hundredth of its memory."""

    size: Size
    """Height h and width w."""
    packed: bytes
    segments: tuple[Segment, ...]

    @classmethod
    def of(cls, ids: np.ndarray, segments: Sequence[Segment]) -> "Segments":
        """Pack a map (h, w) of ids, 0 for no segment."""
        packed = zlib.compress(np.ascontiguousarray(ids, dtype=np.int32).tobytes(), 1)
        return cls(size=(ids.shape[0], ids.shape[1]), packed=packed, segments=tuple(segments))

    def ids(self) -> torch.Tensor:
        """Return the map (h, w) int32."""
        return torch.frombuffer(bytearray(zlib.decompress(self.packed)), dtype=torch.int32).reshape(self.size)


class PanopticTargets(Targets):
    """A sample and an evaluation batch hold `Segments`.

    A training batch holds a dict per image: `boxes` (n, 4) float32 xyxy, `labels` (n,) int64 and `masks` (n, H, W) bool
    of the things that are no crowds, and `semantic` (H, W) uint8, the class of every pixel or `IGNORE`.
    """

    def move(self, target: Segments, geometry: Geometry) -> dict[str, Any]:
        """Return the objects and classes of a placed image; boxes are drawn around what is left of each mask."""
        ids = geometry.masks(target.ids()[None].float())[0].int()
        semantic = torch.full(ids.shape, IGNORE, dtype=torch.uint8)
        masks, labels = [], []
        for segment in target.segments:
            if segment.flat:
                continue
            mask = ids == segment.id
            semantic[mask] = segment.label
            if segment.thing and not segment.crowd and mask.any():
                masks.append(mask)
                labels.append(segment.label)
        stacked = torch.stack(masks) if masks else torch.zeros((0, *ids.shape), dtype=torch.bool)
        boxes = mask_boxes(stacked)
        large = sides(boxes).amin(dim=1) >= _MIN_SIDE
        return {
            "boxes": boxes[large],
            "labels": torch.tensor(labels, dtype=torch.int64)[large],
            "masks": stacked[large],
            "semantic": semantic,
        }

    def collate(self, targets: Sequence[dict[str, Any]], canvas: Size) -> list[dict[str, Any]]:
        """Return the targets with masks and classes padded to the canvas."""
        outside, ignored = torch.tensor(False), torch.tensor(IGNORE, dtype=torch.uint8)
        return [
            {
                **target,
                "masks": pad(target["masks"], canvas, outside),
                "semantic": pad(target["semantic"][None], canvas, ignored)[0],
            }
            for target in targets
        ]

    def count(self, targets: Iterable[Segments], classes: int) -> LabelCounts:
        """Count the segments of each class, the crowds, and the images without any."""
        labels, crowds, images, empty = [], 0, 0, 0
        for target in targets:
            labels += [segment.label for segment in target.segments if not segment.crowd]
            crowds += sum(segment.crowd for segment in target.segments)
            images, empty = images + 1, empty + (not target.segments)
        return LabelCounts(
            unit="segments",
            images=images,
            classes=count_indices(np.array(labels, dtype=np.int64), classes),
            ignored=crowds,
            odd={"images have no segment": empty},
        )


TARGETS.add("panoptic", PanopticTargets(), __name__)
