"""What the published code calls the tensors of necks and detection heads: rules from its names to ours.

Only facts stand here. `d2` is detectron2 0.5 (MPViT), `mm` mmdetection 2.x (ViTAEv2, ScalableViT).
"""

from collections.abc import Sequence

Rules = Sequence[tuple[str, str]]
"""Pairs of a regular expression and the new name of a key that it fully matches."""


def d2_pyramid(first: int) -> Rules:
    """Return the rules of FPN from level `first` (stride `2 ** first`) to 5, with RetinaNet's two levels above."""
    levels = range(first, 6)
    return (
        *((rf"backbone\.fpn_lateral{i}\.(.+)", rf"neck.fpn.inner_blocks.{i - first}.0.\1") for i in levels),
        *((rf"backbone\.fpn_output{i}\.(.+)", rf"neck.fpn.layer_blocks.{i - first}.0.\1") for i in levels),
        (r"backbone\.top_block\.(p[67])\.(.+)", r"neck.fpn.extra_blocks.\1.\2"),
    )


MM_PYRAMID: Rules = (
    (r"neck\.lateral_convs\.(\d)\.conv\.(.+)", r"neck.fpn.inner_blocks.\1.0.\2"),
    (r"neck\.fpn_convs\.(\d)\.conv\.(.+)", r"neck.fpn.layer_blocks.\1.0.\2"),
)

D2_RETINANET: Rules = (
    *d2_pyramid(3),
    *((rf"head\.cls_subnet\.{2 * i}\.(.+)", rf"head.towers.classification_head.conv.{i}.0.\1") for i in range(4)),
    *((rf"head\.bbox_subnet\.{2 * i}\.(.+)", rf"head.towers.regression_head.conv.{i}.0.\1") for i in range(4)),
    (r"head\.cls_score\.(.+)", r"head.towers.classification_head.cls_logits.\1"),
    (r"head\.bbox_pred\.(.+)", r"head.towers.regression_head.bbox_reg.\1"),
)

MM_RETINANET: Rules = (
    (r"neck\.fpn_convs\.3\.conv\.(.+)", r"neck.fpn.extra_blocks.p6.\1"),
    (r"neck\.fpn_convs\.4\.conv\.(.+)", r"neck.fpn.extra_blocks.p7.\1"),
    *MM_PYRAMID,
    (r"bbox_head\.cls_convs\.(\d)\.conv\.(.+)", r"head.towers.classification_head.conv.\1.0.\2"),
    (r"bbox_head\.reg_convs\.(\d)\.conv\.(.+)", r"head.towers.regression_head.conv.\1.0.\2"),
    (r"bbox_head\.retina_cls\.(.+)", r"head.towers.classification_head.cls_logits.\1"),
    (r"bbox_head\.retina_reg\.(.+)", r"head.towers.regression_head.bbox_reg.\1"),
)
