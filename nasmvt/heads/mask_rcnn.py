"""Mask R-CNN on a pyramid, from torchvision's region proposals and region heads.

torchvision's own `MaskRCNN` also resizes and pads images; here they already are on a fixed canvas.

Source: Mask R-CNN (arXiv:1703.06870), settings of mmdetection (see `nasmvt/heads/roi.py`).

Shapes: B batch, C channels, H height, W width, K classes, n objects of an image.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from nasmvt.heads.anchors import StridedAnchors
from nasmvt.heads.boxes import TwoSidedBoxCoder
from nasmvt.heads.layers import in_float32
from nasmvt.heads.roi import BoxHead, BoxPredictor, MaskHead, MaskPredictor, roi_align


class ProposalHead(RPNHead):
    """torchvision's proposal head; what it says is in float32, for the boxes are computed from it."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Turn maps (B, C, H, W) into logits (B, A, H, W) and box offsets (B, 4 * A, H, W) of A anchors per cell."""
        logits, offsets = super().forward(x)
        return [in_float32(logit) for logit in logits], [in_float32(offset) for offset in offsets]


class MaskRCNNHead(nn.Module):
    """Region proposals, boxes and, if wanted, masks of a pyramid of maps.

    Args:
        strides: pixels of the image per cell of each level of the pyramid.
        classes: number K of classes, background not counted.
        masks: whether there is a mask branch.
        extra_level: whether the last level serves region proposals only.
        width: channels C of the pyramid and of every convolution here.
        anchor_scale: side of the square anchor in cells.
        anchor_ratios: height divided by width of the anchors.
        rpn_convs: 3x3 convolutions of the proposal head.
        box_convs: 3x3 convolutions of the box branch.
        box_hidden: outputs of the box branch's linear layer.
        mask_convs: 3x3 convolutions of the mask branch.
        box_size: side of a region pooled for the box branch.
        mask_size: side of a region pooled for the mask branch; masks have twice that side.
        rpn_batch: anchors per image in the loss.
        roi_batch: regions per image in the loss.
        pre_nms: proposals kept per level before suppression, while training and while predicting.
        post_nms: proposals kept per image after it, while training and while predicting.
        score_threshold: detections with a lower score are dropped.
        nms: overlap (IoU) above which the weaker of two detections of a class is dropped.
        detections: most detections kept per image.
        anchor_rounding: whether anchors are rounded to whole pixels (torchvision) or not (mmdetection).
        roi_aligned: whether regions are read at the centres of cells (mmdetection 2) or not (torchvision).
        clip_shrinking: whether the offsets that shrink a box are bounded like those that enlarge it
            (mmdetection) or not (torchvision).
    """

    def __init__(
        self,
        strides: Sequence[int],
        classes: int,
        *,
        masks: bool = True,
        extra_level: bool = True,
        width: int = 256,
        anchor_scale: float = 8,
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        rpn_convs: int = 2,
        box_convs: int = 4,
        box_hidden: int = 1024,
        mask_convs: int = 4,
        box_size: int = 7,
        mask_size: int = 14,
        rpn_batch: int = 256,
        roi_batch: int = 512,
        pre_nms: tuple[int, int] = (2000, 1000),
        post_nms: tuple[int, int] = (1000, 1000),
        score_threshold: float = 0.05,
        nms: float = 0.5,
        detections: int = 100,
        anchor_rounding: bool = True,
        roi_aligned: bool = False,
        clip_shrinking: bool = False,
    ) -> None:
        super().__init__()
        self.regions = post_nms[1]
        """Maximum number of regions per image in the box branch while predicting."""
        self.rpn = RegionProposalNetwork(
            StridedAnchors(strides, anchor_scale, anchor_ratios, rounding=anchor_rounding),
            ProposalHead(width, len(anchor_ratios), conv_depth=rpn_convs),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=rpn_batch,
            positive_fraction=0.5,
            pre_nms_top_n={"training": pre_nms[0], "testing": pre_nms[1]},
            post_nms_top_n={"training": post_nms[0], "testing": post_nms[1]},
            nms_thresh=0.7,
        )
        regions = strides[:-1] if extra_level else strides
        self.roi_heads = RoIHeads(
            roi_align(regions, box_size, aligned=roi_aligned),
            BoxHead(width, box_size, box_convs, box_hidden),
            BoxPredictor(box_hidden, classes),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=roi_batch,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=score_threshold,
            nms_thresh=nms,
            detections_per_img=detections,
            mask_roi_pool=roi_align(regions, mask_size, aligned=roi_aligned) if masks else None,
            mask_head=MaskHead(width, mask_convs) if masks else None,
            mask_predictor=MaskPredictor(width, classes) if masks else None,
        )
        if clip_shrinking:
            for part in (self.rpn, self.roi_heads):
                part.box_coder = TwoSidedBoxCoder(part.box_coder.weights)

    def losses(
        self,
        maps: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]],
        sizes: Sequence[tuple[int, int]],
    ) -> dict[str, Tensor]:
        """Return the losses of a batch, drawing anchors and regions at random; needs `train()`.

        Args:
            maps: the pyramid, one (B, C, H, W) per stride.
            targets: for each image `boxes` (n, 4) float xyxy of positive width and height, `labels` (n,)
                int64 from 0, and `masks` (n, H, W) if there is a mask branch; n may be 0.
            sizes: height and width of each image on the canvas.

        Returns:
            `loss_objectness`, `loss_rpn_box_reg`, `loss_classifier`, `loss_box_reg` and, with masks,
            `loss_mask`.

        Raises:
            RuntimeError: if the head is not in training mode.
        """
        if not self.training:
            raise RuntimeError("MaskRCNNHead.losses needs training mode: call train() before it")
        targets = [{**target, "labels": target["labels"] + 1} for target in targets]
        features, images = _torchvision_inputs(maps, sizes)
        proposals, rpn_losses = self.rpn(images, features, targets)
        _, roi_losses = self.roi_heads(features, proposals, images.image_sizes, targets)
        return {**rpn_losses, **roi_losses}

    def detect(self, maps: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[dict[str, Tensor]]:
        """Return the detections of each image, best score first; needs `eval()`.

        Args:
            maps: the pyramid, one (B, C, H, W) per stride.
            sizes: height and width of each image on the canvas; boxes are clipped to it.

        Returns:
            For each image `boxes` (n, 4) xyxy, `labels` (n,) from 0, `scores` (n,) in 0..1 and, with a mask
            branch, `masks` (n, 28, 28), the probability of the object inside its box.

        Raises:
            RuntimeError: if the head is in training mode.
        """
        if self.training:
            raise RuntimeError("MaskRCNNHead.detect needs evaluation mode: call eval() before it")
        features, images = _torchvision_inputs(maps, sizes)
        proposals, _ = self.rpn(images, features)
        detections, _ = self.roi_heads(features, proposals, images.image_sizes)
        for detection in detections:
            detection["labels"] = detection["labels"] - 1
            if "masks" in detection:
                detection["masks"] = detection["masks"].squeeze(1)
        result: list[dict[str, Tensor]] = detections
        return result

    def workload(self, maps: Sequence[Tensor]) -> None:
        """Run the proposals, the box branch on all regions kept by suppression, the mask branch on all detections.

        Only convolutions and matrix products are included, not suppression or pooling, for example.
        """
        self.rpn.head(list(maps))
        regions, (images, width) = self.roi_heads, maps[0].shape[:2]
        pooled = maps[0].new_zeros(images * self.regions, width, *regions.box_roi_pool.output_size)
        regions.box_predictor(regions.box_head(pooled))
        if regions.mask_head is not None:
            found = images * regions.detections_per_img
            pooled = maps[0].new_zeros(found, width, *regions.mask_roi_pool.output_size)
            regions.mask_predictor(regions.mask_head(pooled))

    def forward(self, maps: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[dict[str, Tensor]]:
        """Return `detect(maps, sizes)`."""
        return self.detect(maps, sizes)


def _torchvision_inputs(
    maps: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
) -> tuple[dict[str, Tensor], ImageList]:
    """Name the levels and wrap the sizes; the list's tensors are never read, so the first map stands in."""
    features = OrderedDict((str(i), map_BCHW) for i, map_BCHW in enumerate(maps))
    return features, ImageList(maps[0], [(int(height), int(width)) for height, width in sizes])
