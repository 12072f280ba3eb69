"""RetinaNet on a pyramid, by detectron2's or mmdetection's conventions.

torchvision's own `RetinaNet` rounds anchors, learns strides from the canvas and normalises the losses by image; only
its towers are used.

Sources: Focal Loss for Dense Object Detection (arXiv:1708.02002); detectron2 0.5 (MPViT); mmdetection 2.10
(ScalableViT).

Shapes: B batch, C channels, H, W of a level, A anchors of all levels, a of one, K classes, n boxes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.retinanet import RetinaNetHead as Towers
from torchvision.ops import clip_boxes_to_image, sigmoid_focal_loss

from nasmvt.heads.anchors import StridedAnchors
from nasmvt.heads.boxes import BACKGROUND, IGNORED, assign, box_coder, cells_inside, suppress
from nasmvt.heads.layers import in_float32
from nasmvt.heads.static import best, clip, levels, survivors

Convention = Literal["detectron2", "mmdetection"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a convention says."""

    size_first: bool
    """Order of the anchors of a cell: by size, then ratio, or by ratio, then size."""
    clip_shrinking: bool
    """Whether offsets that shrink a box are bounded."""
    moving: bool
    """Whether an object takes its best anchors from objects that they overlap more."""
    divisor: int | None
    """Anchors count whose cell is inside the image padded to a multiple of this; None: all."""
    running: bool
    """Whether losses are divided by a running mean of the positives, or by those of the batch, at least 1 per image."""
    pairs: bool
    """Whether the best pairs of anchor and class of a level are kept, or the best anchors with every class."""
    clip_first: bool
    """Whether boxes are clipped to the image before suppression, or after it, those without an area being dropped."""


RULES: Mapping[Convention, Rules] = {
    "detectron2": Rules(
        size_first=True, clip_shrinking=False, moving=False, divisor=None, running=True, pairs=True, clip_first=False
    ),
    "mmdetection": Rules(
        size_first=False, clip_shrinking=True, moving=True, divisor=32, running=False, pairs=False, clip_first=True
    ),
}


class RetinaNetHead(nn.Module):
    """Two towers of convolutions shared by all levels; a score per class and a box per anchor.

    Args:
        strides: pixels of the image per cell of each level.
        classes: number K of classes.
        width: channels of the pyramid and of the towers.
        anchor_scale: side of the smallest square anchor in cells.
        anchor_octaves: sizes of anchors per octave.
        anchor_ratios: height divided by width of the anchors.
        positive: overlap (IoU) from which an anchor is an object's.
        negative: overlap below which an anchor is background.
        alpha: weight of the positives in the focal loss; the negatives' is 1 - alpha.
        gamma: exponent of the focal loss.
        pre_nms: candidates kept per level before suppression.
        score_threshold: detections with a lower score are dropped.
        nms: overlap (IoU) above which the weaker of two detections of a class is dropped.
        detections: most detections kept per image.
        convention: "detectron2" or "mmdetection", see `Rules`.
    """

    heavy: ClassVar[tuple[str, ...]] = ("towers.*",)
    """Patterns of the modules whose activations may be recomputed."""

    normalizer: Tensor

    def __init__(
        self,
        strides: Sequence[int],
        classes: int,
        *,
        width: int = 256,
        anchor_scale: float = 4,
        anchor_octaves: int = 3,
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        positive: float = 0.5,
        negative: float = 0.4,
        alpha: float = 0.25,
        gamma: float = 2.0,
        pre_nms: int = 1000,
        score_threshold: float = 0.05,
        nms: float = 0.5,
        detections: int = 100,
        convention: Convention = "detectron2",
    ) -> None:
        super().__init__()
        self.rules = RULES[convention]
        self.anchors = StridedAnchors(
            strides,
            anchor_scale,
            anchor_ratios,
            octaves=anchor_octaves,
            size_first=self.rules.size_first,
            rounding=False,
        )
        self.towers = Towers(width, anchor_octaves * len(anchor_ratios), classes)
        self.coder = box_coder(clip_shrinking=self.rules.clip_shrinking)
        self.positive, self.negative = positive, negative
        self.alpha, self.gamma = alpha, gamma
        self.pre_nms, self.score_threshold, self.nms, self.detections = pre_nms, score_threshold, nms, detections
        if self.rules.running:  # a buffer, unlike detectron2's: a resumed training goes on as if it had not stopped
            self.register_buffer("normalizer", torch.tensor(100.0))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Turn the pyramid into logits (B, A, K) and box offsets (B, A, 4), ordered by level, row, column, anchor."""
        outputs = self.towers(list(maps))
        return in_float32(outputs["cls_logits"]), in_float32(outputs["bbox_regression"])

    def losses(
        self, maps: Sequence[Tensor], targets: Sequence[dict[str, Tensor]], sizes: Sequence[tuple[int, int]]
    ) -> dict[str, Tensor]:
        """Return `loss_classifier` (focal) and `loss_box_reg` (L1 of the offsets) of a batch.

        Args:
            maps: the pyramid, one (B, C, H, W) per stride.
            targets: for each image `boxes` (n, 4) float xyxy of positive width and height and `labels` (n,) from 0.
            sizes: height and width of each image on the canvas.
        """
        logits_BAK, offsets_BA4 = self(maps)
        anchors_A4 = torch.cat(self.anchors.levels(maps))
        matches = self.match(anchors_A4, targets, sizes)
        normalizer = self._normalize(matches)
        scores, boxes = [], []
        for logits_AK, offsets_A4, match_A, target in zip(logits_BAK, offsets_BA4, matches, targets, strict=True):
            own = match_A > BACKGROUND
            wanted_AK = torch.zeros_like(logits_AK)
            wanted_AK[own, target["labels"][match_A[own]]] = 1
            counts = match_A != IGNORED
            loss = sigmoid_focal_loss(logits_AK[counts], wanted_AK[counts], self.alpha, self.gamma, reduction="sum")
            scores.append(loss)
            wanted_n4 = self.coder.encode_single(target["boxes"][match_A[own]], anchors_A4[own])
            boxes.append(F.l1_loss(offsets_A4[own], wanted_n4, reduction="sum"))
        return {
            "loss_classifier": torch.stack(scores).sum() / normalizer,
            "loss_box_reg": torch.stack(boxes).sum() / normalizer,
        }

    def match(
        self, anchors_A4: Tensor, targets: Sequence[dict[str, Tensor]], sizes: Sequence[tuple[int, int]]
    ) -> list[Tensor]:
        """Return for each image the object of each anchor (A,), see `assign`."""
        return [
            assign(
                anchors_A4,
                target["boxes"],
                self.positive,
                self.negative,
                low_quality=0,
                moving=self.rules.moving,
                usable_A=cells_inside(anchors_A4, size, self.rules.divisor) if self.rules.divisor else None,
            )
            for target, size in zip(targets, sizes, strict=True)
        ]

    @torch.no_grad()
    def _normalize(self, matches: Sequence[Tensor]) -> Tensor:
        """Return what the losses of a batch are divided by; a running one takes in the batch first."""
        positives_B = torch.stack([(match_A > BACKGROUND).sum() for match_A in matches])
        if not self.rules.running:
            return positives_B.clamp(min=1).sum()
        self.normalizer.mul_(0.9).add_(0.1 * positives_B.sum().clamp(min=1))
        return self.normalizer.clone()

    def detect(self, maps: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[dict[str, Tensor]]:
        """Return the detections of each image, best score first.

        Args:
            maps: the pyramid, one (B, C, H, W) per stride.
            sizes: height and width of each image on the canvas; boxes are clipped to it.

        Returns:
            For each image `boxes` (n, 4) xyxy, `labels` (n,) from 0 and `scores` (n,) in 0..1.
        """
        logits_BAK, offsets_BA4 = self(maps)
        anchors = self.anchors.levels(maps)
        counts = [len(level) for level in anchors]
        return [
            self._detect(self._candidates(logits.split(counts), offsets.split(counts), anchors), size)
            for logits, offsets, size in zip(logits_BAK, offsets_BA4, sizes, strict=True)
        ]

    def _candidates(
        self, logits: Sequence[Tensor], offsets: Sequence[Tensor], anchors: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (n, 4), labels (n,) and scores (n,) of an image before clipping and suppression."""
        boxes, labels, scores = [], [], []
        for logits_aK, offsets_a4, anchors_a4 in zip(logits, offsets, anchors, strict=True):
            scores_aK = logits_aK.sigmoid()
            if self.rules.pairs:
                anchor, label = self._best(scores_aK)
            else:
                best = scores_aK.amax(1).topk(min(self.pre_nms, len(scores_aK))).indices
                place, label = (scores_aK[best] > self.score_threshold).nonzero(as_tuple=True)
                anchor = best[place]
            boxes.append(self.coder.decode_single(offsets_a4[anchor], anchors_a4[anchor]))
            labels.append(label)
            scores.append(scores_aK[anchor, label])
        return torch.cat(boxes), torch.cat(labels), torch.cat(scores)

    def _best(self, scores_aK: Tensor) -> tuple[Tensor, Tensor]:
        """Return anchors (n,) and labels (n,) of the best pairs of a level that reach the threshold."""
        scores, place = scores_aK.flatten().topk(min(self.pre_nms, scores_aK.numel()))
        place = place[scores > self.score_threshold]
        return place // scores_aK.shape[1], place % scores_aK.shape[1]

    def _detect(self, candidates: tuple[Tensor, Tensor, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        boxes, labels, scores = candidates
        if self.rules.clip_first:
            boxes = clip_boxes_to_image(boxes, size)
        kept = suppress(boxes, scores, labels, self.nms, self.detections)
        boxes, labels, scores = boxes[kept], labels[kept], scores[kept]
        if not self.rules.clip_first:
            boxes = clip_boxes_to_image(boxes, size)
            visible = ((boxes[:, 2:] > boxes[:, :2]).all(dim=1)).nonzero().squeeze(1)
            boxes, labels, scores = boxes[visible], labels[visible], scores[visible]
        return {"boxes": boxes, "labels": labels, "scores": scores}

    def detect_static(self, maps: Sequence[Tensor], sizes: Tensor) -> dict[str, Tensor]:
        """Return the detections in tensors of fixed shapes; nothing is dropped but scored 0.

        Args:
            maps: the pyramid, one (B, C, H, W) per stride.
            sizes: (B, 2) int64, height and width of each image on the canvas.

        Returns:
            `boxes` (B, D, 4) xyxy, `labels` (B, D) from 0, `scores` (B, D), best first, 0 where there is no detection.
        """
        logits_BAK, offsets_BA4 = self(maps)
        anchors = self.anchors.levels(maps)
        counts = [level.shape[0] for level in anchors]  # `len` would make it a constant in tracing
        boxes, scores = [], []
        for logits, offsets, level in zip(
            levels(logits_BAK, counts), levels(offsets_BA4, counts), anchors, strict=True
        ):
            scores_BnK, offsets_Bn4, anchors_Bn4 = self._best_static(logits.sigmoid(), offsets, level)
            decoded = self.coder.decode_single(offsets_Bn4.flatten(0, 1), anchors_Bn4.flatten(0, 1))
            boxes.append(decoded.view_as(anchors_Bn4))
            scores.append(torch.where(scores_BnK > self.score_threshold, scores_BnK, 0))
        boxes_BN4, scores_BKN = torch.cat(boxes, dim=1), torch.cat(scores, dim=1).transpose(1, 2)
        if self.rules.clip_first:
            boxes_BN4 = clip(boxes_BN4, sizes)
        boxes_BKN4 = boxes_BN4[:, None].expand(-1, scores_BKN.shape[1], -1, -1)
        kept = survivors(boxes_BKN4.flatten(0, 1), scores_BKN.flatten(0, 1), self.nms).view_as(scores_BKN)
        labels_BKN = torch.arange(scores_BKN.shape[1], device=kept.device)[:, None].expand_as(scores_BKN)
        scores_BD, boxes_BD4, labels_BD = best(
            torch.where(kept, scores_BKN, 0).flatten(1),
            self.detections,
            boxes_BKN4.flatten(1, 2),
            labels_BKN.flatten(1),
        )
        if not self.rules.clip_first:
            boxes_BD4 = clip(boxes_BD4, sizes)
            visible = (boxes_BD4[..., 2:] > boxes_BD4[..., :2]).all(dim=-1)
            scores_BD, boxes_BD4, labels_BD = best(
                torch.where(visible, scores_BD, 0), self.detections, boxes_BD4, labels_BD
            )
        found = scores_BD > 0
        return {
            "boxes": torch.where(found[..., None], boxes_BD4, 0),
            "labels": torch.where(found, labels_BD, 0),
            "scores": scores_BD,
        }

    def _best_static(self, scores_BaK: Tensor, offsets_Ba4: Tensor, anchors_a4: Tensor) -> tuple[Tensor, ...]:
        """Return scores (B, n, K), offsets (B, n, 4) and anchors (B, n, 4) of the best candidates of a level."""
        batch, anchors, classes = scores_BaK.shape
        anchors_Ba4 = anchors_a4.expand(batch, -1, -1)
        if not self.rules.pairs:
            _, *chosen = best(scores_BaK.amax(2), self.pre_nms, scores_BaK, offsets_Ba4, anchors_Ba4)
            return tuple(chosen)
        pairs = torch.arange(anchors * classes, device=scores_BaK.device).expand(batch, -1)
        scores_Bn, pair_Bn = best(scores_BaK.flatten(1), self.pre_nms, pairs)
        alone = torch.zeros(*scores_Bn.shape, classes, dtype=scores_Bn.dtype, device=scores_Bn.device)
        place = (pair_Bn // classes)[..., None].expand(-1, -1, 4)
        return (
            alone.scatter(2, (pair_Bn % classes)[..., None], scores_Bn[..., None]),
            offsets_Ba4.gather(1, place),
            anchors_Ba4.gather(1, place),
        )

    def workload(self, maps: Sequence[Tensor]) -> None:
        """Run the towers; decoding and suppression, which are neither convolution nor matrix product, are left out."""
        self(maps)
