"""Panoptic quality, exactly as the COCO evaluation computes it.

Source: Panoptic Segmentation (arXiv:1801.00868), section 4; COCO's panopticapi.

Shapes: K classes, H, W of an image.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nasmvt.data.panoptic import VOID, Segments
from nasmvt.tasks.network import TaskMetric


class PanopticQuality(TaskMetric):
    """PQ, SQ and RQ in percent, averaged over the classes that occur or are predicted: of all, of things, of stuff.

    A segment of a class matches one of the same class if their IoU, without what lies on pixels of no target segment,
    is above a half.

    Args:
        classes: number K of classes.
        things: number of those that are things; their labels come first.
    """

    primary = "pq"

    def __init__(self, classes: int, things: int) -> None:
        self._things = things
        self._iou_K = np.zeros(classes)
        self._hits_K, self._false_K, self._missed_K = (np.zeros(classes, dtype=np.int64) for _ in range(3))

    def update(self, predictions: Sequence[Any], targets: Sequence[Segments]) -> None:
        """Add predictions (`PanopticPrediction`) and the segments of their images, of the same sizes."""
        for prediction, target in zip(predictions, targets, strict=True):
            labels = {segment.id: segment.label for segment in prediction.segments}
            self._add(prediction.ids.cpu().numpy(), labels, target)

    def add(self, other: "PanopticQuality") -> None:
        """Add the segments of another metric."""
        self._iou_K += other._iou_K
        self._hits_K += other._hits_K
        self._false_K += other._false_K
        self._missed_K += other._missed_K

    def _add(self, ids_HW: np.ndarray, labels: dict[int, int], target: Segments) -> None:
        truths = {segment.id: segment for segment in target.segments}
        pairs, counts = np.unique(np.stack((target.ids().numpy().ravel(), ids_HW.ravel())), axis=1, return_counts=True)
        overlaps = {(int(t), int(p)): int(count) for t, p, count in zip(*pairs, counts, strict=True)}
        areas: dict[int, int] = {}
        for (_, guess), count in overlaps.items():
            areas[guess] = areas.get(guess, 0) + count
        matched = set()
        for (truth, guess), overlap in overlaps.items():
            if truth == VOID or guess == VOID or truths[truth].crowd or truths[truth].label != labels[guess]:
                continue
            union = truths[truth].area + areas[guess] - overlap - overlaps.get((VOID, guess), 0)
            if overlap / union > 0.5:
                self._hits_K[labels[guess]] += 1
                self._iou_K[labels[guess]] += overlap / union
                matched |= {("target", truth), ("prediction", guess)}
        crowds: dict[int, int] = {}
        for segment in target.segments:
            if segment.crowd:
                crowds[segment.label] = segment.id  # of several, COCO reads the last one
            elif ("target", segment.id) not in matched:
                self._missed_K[segment.label] += 1
        for guess, label in labels.items():
            if ("prediction", guess) in matched:
                continue
            excused = overlaps.get((VOID, guess), 0) + overlaps.get((crowds.get(label, -1), guess), 0)
            if excused / areas[guess] <= 0.5:
                self._false_K[label] += 1

    def compute(self) -> dict[str, float]:
        """Return `pq`, `sq`, `rq`, and the same of things (`pq_things`) and stuff (`pq_stuff`); 0 where none counts."""
        weights_K = self._hits_K + (self._false_K + self._missed_K) / 2
        counted_K = weights_K > 0
        safe_K, hits_K = np.where(counted_K, weights_K, 1), np.maximum(self._hits_K, 1)
        figures = {"pq": self._iou_K / safe_K, "sq": self._iou_K / hits_K, "rq": self._hits_K / safe_K}
        things_K = np.arange(len(counted_K)) < self._things
        parts = {"": counted_K, "_things": counted_K & things_K, "_stuff": counted_K & ~things_K}
        return {
            f"{name}{part}": 100 * float(values_K[chosen_K].mean()) if chosen_K.any() else 0.0
            for part, chosen_K in parts.items()
            for name, values_K in figures.items()
        }
