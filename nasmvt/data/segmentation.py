"""Targets of semantic segmentation: label maps.

Shapes: B batch, H, W canvas height and width, h, w image height and width.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nasmvt.data.geometry import Geometry, Size, pad
from nasmvt.data.report import LabelCounts
from nasmvt.data.targets import TARGETS, Targets
from nasmvt.data.types import IGNORE


class LabelMaps(Targets):
    """A sample holds a label map (h, w), a training batch maps (B, H, W) with `IGNORE` on the padding; all uint8.

    An evaluation batch holds a list of `PackedLabels` of the original sizes.
    """

    advice_for_one_class = "name the class of what surrounds it by 'labels', such as {0: background, 1: object}"

    def move(self, target: torch.Tensor, geometry: Geometry) -> torch.Tensor:
        """Return the label map (h, w) uint8 of the placed image."""
        return geometry.masks(target[None])[0]

    def balanced(self, target: torch.Tensor, most: float) -> bool:
        """Return whether several classes are in a label map and the most frequent has less than `most` of the pixels.

        Pixels of `IGNORE` do not count.
        """
        counts = torch.bincount(target.flatten().long(), minlength=IGNORE + 1)[:IGNORE]
        return int((counts > 0).sum()) > 1 and int(counts.max()) < most * int(counts.sum())

    def collate(self, targets: Sequence[torch.Tensor], canvas: Size) -> torch.Tensor:
        """Return label maps (B, H, W) uint8."""
        ignored = torch.tensor(IGNORE, dtype=torch.uint8)
        return torch.cat([pad(labels[None], canvas, ignored) for labels in targets])

    def gather(self, targets: Sequence[torch.Tensor], canvas: Size) -> list["PackedLabels"]:
        """Return the label maps (h, w) of the original images, packed."""
        return [PackedLabels.of(labels) for labels in targets]

    def count(self, targets: Iterable[torch.Tensor], classes: int) -> LabelCounts:
        """Count the pixels of each class, the ignored pixels, and the maps that hold only those."""
        totals, images, void = np.zeros(IGNORE + 1, dtype=np.int64), 0, 0
        for labels in targets:
            counts = np.bincount(labels.numpy().ravel(), minlength=IGNORE + 1)
            totals, images, void = totals + counts, images + 1, void + (counts[:IGNORE].sum() == 0)
        return LabelCounts(
            unit="pixels",
            images=images,
            classes=tuple(totals[:classes].tolist()),
            ignored=int(totals[IGNORE]),
            odd={"label maps hold only ignored pixels": int(void)},
        )


@dataclass(frozen=True)
class PackedLabels:
    """A losslessly compressed label map: those of a split of photographs would take gigabytes."""

    size: Size
    """Height h and width w."""
    packed: bytes

    @classmethod
    def of(cls, labels: torch.Tensor) -> "PackedLabels":
        """Pack a label map (h, w) uint8."""
        return cls((labels.shape[0], labels.shape[1]), zlib.compress(labels.contiguous().numpy().tobytes(), 1))

    def dense(self) -> torch.Tensor:
        """Return the label map (h, w) uint8."""
        return torch.frombuffer(bytearray(zlib.decompress(self.packed)), dtype=torch.uint8).reshape(self.size)


TARGETS.add("segmentation", LabelMaps(), __name__)
