"""Necks and heads of mmdetection 2.x and mmsegmentation 0.x as ViT-MVT's authors use them: names, layouts, settings.

This file only holds facts; `nasmvt.pipeline.import_reference` applies them. Where the settings imply more than equal
tensors (anchors, pooling, box offsets), see `docs/reference-checkpoints.md`.

Shapes: K classes, background not counted.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from nasmvt.heads import mm_segmentation

Rules = Sequence[tuple[str, str]]

NAMES: Mapping[str, Rules] = {
    "classification": ((r"head\.fc\.(.+)", r"head.fc.\1"),),
    "detection": (
        (r"neck\.levels\.(\d+)\.1\.0\.(.+)", r"neck.lateral_convs.\1.conv.\2"),
        (r"neck\.levels\.(\d+)\.1\.1\.(.+)", r"neck.lateral_convs.\1.bn.\2"),
        (r"neck\.levels\.(\d+)\.2\.0\.(.+)", r"neck.fpn_convs.\1.conv.\2"),
        (r"neck\.levels\.(\d+)\.2\.1\.(.+)", r"neck.fpn_convs.\1.bn.\2"),
        (r"neck\.levels\.0\.0\.1\.(.+)", r"neck.top_downs.0.1.syncbn.\1"),
        (r"neck\.levels\.0\.0\.([03])\.(.+)", r"neck.top_downs.0.\1.\2"),
        (r"neck\.levels\.1\.0\.0\.(.+)", r"neck.top_downs.1.\1"),
        (r"head\.rpn\.head\.conv\.(\d+)\.0\.(.+)", r"rpn_head.rpn_conv.\1.conv.\2"),
        (r"head\.rpn\.head\.cls_logits\.(.+)", r"rpn_head.rpn_cls.\1"),
        (r"head\.rpn\.head\.bbox_pred\.(.+)", r"rpn_head.rpn_reg.\1"),
        (r"head\.roi_heads\.box_head\.(\d+)\.0\.(.+)", r"roi_head.bbox_head.shared_convs.\1.conv.\2"),
        (r"head\.roi_heads\.box_head\.(\d+)\.1\.(.+)", r"roi_head.bbox_head.shared_convs.\1.bn.\2"),
        (r"head\.roi_heads\.box_head\.\d+\.(weight|bias)", r"roi_head.bbox_head.shared_fcs.0.\1"),
        (r"head\.roi_heads\.box_predictor\.scores\.(.+)", r"roi_head.bbox_head.fc_cls.\1"),
        (r"head\.roi_heads\.box_predictor\.boxes\.(.+)", r"roi_head.bbox_head.fc_reg.\1"),
        (r"head\.roi_heads\.mask_head\.(\d+)\.0\.(.+)", r"roi_head.mask_head.convs.\1.conv.\2"),
        (r"head\.roi_heads\.mask_predictor\.deconv\.(.+)", r"roi_head.mask_head.upsample.\1"),
        (r"head\.roi_heads\.mask_predictor\.masks\.(.+)", r"roi_head.mask_head.conv_logits.\1"),
    ),
    "segmentation": (
        (r"neck\.laterals\.(\d+)\.(.+)", r"neck.lateral_convs.\1.conv.\2"),
        (r"neck\.convs\.(\d+)\.(.+)", r"neck.convs.\1.conv.\2"),
        *mm_segmentation.NAMES["upernet"],
    ),
}
"""By kind of task: our names, below the task network, to the published ones."""

ADAPTIVE: Mapping[str, frozenset[str]] = {"classification": frozenset({"head.fc"})}
"""Published layers that are kept as a shared weight, a specific weight and a score; the others are plain."""

CLASSIFIER: Mapping[str, tuple[str, int]] = {
    "classification": ("head.fc.weight", 0),
    "detection": ("roi_head.bbox_head.fc_cls.weight", 1),
    "segmentation": ("decode_head.conv_seg.weight", 0),
}
"""The published tensor with a row per class, and how many of its rows are not classes."""

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "classification": {"type": "linear"},
    "detection": {
        "type": "mask_rcnn",
        "masks": True,
        "width": 256,
        "strides": (4, 8, 16, 32),
        "anchor_scale": 8,
        "anchor_ratios": (0.5, 1.0, 2.0),
        "rpn_convs": 2,
        "box_convs": 4,
        "box_hidden": 1024,
        "mask_convs": 4,
        "box_size": 7,
        "mask_size": 14,
        "rpn_batch": 256,
        "roi_batch": 512,
        "pre_nms": (2000, 1000),
        "post_nms": (1000, 1000),
        "score_threshold": 0.05,
        "nms": 0.5,
        "detections": 100,
        "anchor_rounding": False,
        "roi_aligned": True,
        "clip_shrinking": True,
    },
    "segmentation": {
        "type": "upernet",
        "channels": 576,
        "strides": (4, 8, 16, 32),
        "pool_scales": (1, 2, 3, 6),
        "aux_weight": 0.4,
        "aux_channels": 256,
        "norm": "batch",
    },
}
"""By kind of task: the settings with which our head computes the same as theirs."""


def laid_out(name: str, tensor: Tensor) -> Tensor:
    """Convert a published tensor of a neck or head to our layout, by our name.

    Only the class scores differ: theirs (K + 1 rows) have the background last, ours first.
    """
    return tensor.roll(1, 0) if name.startswith("head.roi_heads.box_predictor.scores.") else tensor
