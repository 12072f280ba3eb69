"""What the published code calls the tensors of necks and detection heads: rules from its names to ours.

Only facts stand here. `d2` is detectron2 0.5 (MPViT), `mm` mmdetection 2.x (ViTAEv2, ScalableViT).
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nasmvt.errors import UserError

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

_MM_PROPOSALS: Rules = (
    (r"rpn_head\.rpn_conv\.(.+)", r"head.rpn.head.conv.0.0.\1"),
    (r"rpn_head\.rpn_cls\.(.+)", r"head.rpn.head.cls_logits.\1"),
    (r"rpn_head\.rpn_reg\.(.+)", r"head.rpn.head.bbox_pred.\1"),
)


def _mm_stage(theirs: str, ours: str) -> Rules:
    """Return the rules of a stage: `theirs` stands behind the names of its parts."""
    box, mask = rf"roi_head\.bbox_head\.{theirs}", rf"roi_head\.mask_head\.{theirs}"
    return (
        (box + r"shared_convs\.(\d)\.conv\.(.+)", rf"{ours}.box_head.\1.0.\2"),
        (box + r"shared_convs\.(\d)\.bn\.(.+)", rf"{ours}.box_head.\1.1.\2"),
        (box + r"fc_cls\.(.+)", rf"{ours}.box_predictor.scores.\1"),
        (box + r"fc_reg\.(.+)", rf"{ours}.box_predictor.boxes.\1"),
        (mask + r"convs\.(\d)\.conv\.(.+)", rf"{ours}.mask_head.\1.0.\2"),
        (mask + r"upsample\.(.+)", rf"{ours}.mask_predictor.deconv.\1"),
        (mask + r"conv_logits\.(.+)", rf"{ours}.mask_predictor.masks.\1"),
    )


MM_MASK_RCNN: Rules = (
    *MM_PYRAMID,
    *_MM_PROPOSALS,
    (r"roi_head\.bbox_head\.shared_fcs\.0\.(.+)", r"head.roi_heads.box_head.1.\1"),
    (r"roi_head\.bbox_head\.shared_fcs\.1\.(.+)", r"head.roi_heads.box_head.3.\1"),
    *_mm_stage("", "head.roi_heads"),
)
"""With a box branch of two linear layers."""

MM_CASCADE: Rules = (
    *MM_PYRAMID,
    *_MM_PROPOSALS,
    (r"roi_head\.bbox_head\.(\d)\.shared_fcs\.0\.(.+)", r"head.stages.\1.box_head.5.\2"),
    *(rule for stage in range(3) for rule in _mm_stage(rf"{stage}\.", f"head.stages.{stage}")),
)
"""With box branches of four convolutions and a linear layer."""

_D2_REGIONS: Rules = (
    *d2_pyramid(2),
    (r"proposal_generator\.rpn_head\.conv\.(.+)", r"head.rpn.head.conv.0.0.\1"),
    (r"proposal_generator\.rpn_head\.objectness_logits\.(.+)", r"head.rpn.head.cls_logits.\1"),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.(.+)", r"head.rpn.head.bbox_pred.\1"),
)


def _d2_stage(theirs: str, ours: str) -> Rules:
    """Return the rules of a stage's box branch: `theirs` stands behind the names of its parts."""
    head, predictor = rf"roi_heads\.box_head\.{theirs}", rf"roi_heads\.box_predictor\.{theirs}"
    return (
        (head + r"fc1\.(.+)", rf"{ours}.box_head.1.\1"),
        (head + r"fc2\.(.+)", rf"{ours}.box_head.3.\1"),
        (predictor + r"cls_score\.(.+)", rf"{ours}.box_predictor.scores.\1"),
        (predictor + r"bbox_pred\.(.+)", rf"{ours}.box_predictor.boxes.\1"),
    )


def _d2_masks(ours: str) -> Rules:
    return (
        *((rf"roi_heads\.mask_head\.mask_fcn{i + 1}\.(.+)", rf"{ours}.mask_head.{i}.0.\1") for i in range(4)),
        (r"roi_heads\.mask_head\.deconv\.(.+)", rf"{ours}.mask_predictor.deconv.\1"),
        (r"roi_heads\.mask_head\.predictor\.(.+)", rf"{ours}.mask_predictor.masks.\1"),
    )


D2_MASK_RCNN: Rules = (*_D2_REGIONS, *_d2_stage("", "head.roi_heads"), *_d2_masks("head.roi_heads"))

D2_CASCADE: Rules = (
    *_D2_REGIONS,
    *(rule for stage in range(3) for rule in _d2_stage(rf"{stage}\.", f"head.stages.{stage}")),
    *_d2_masks("head.stages.0"),
)


_ENCODER, _DECODER = r"transformer\.encoder\.layers\.(\d+)\.", r"transformer\.decoder\.layers\.(\d+)\."

DEFORMABLE_DETR: Rules = (
    (r"input_proj\.(.+)", r"neck.levels.\1"),
    (r"query_embed\.weight", r"head.query_embed"),
    (
        r"transformer\.(level_embed|(?:reference_points|enc_output|enc_output_norm|pos_trans|pos_trans_norm)\..+)",
        r"head.\1",
    ),
    (_ENCODER + r"(self_attn\..+)", r"head.encoder.\1.\2"),
    (_ENCODER + r"norm1\.(.+)", r"head.encoder.\1.norm.\2"),
    (_ENCODER + r"norm2\.(.+)", r"head.encoder.\1.ffn.norm.\2"),
    (_ENCODER + r"(linear[12]\..+)", r"head.encoder.\1.ffn.\2"),
    (_DECODER + r"((?:self|cross)_attn\..+)", r"head.decoder.\1.\2"),
    (_DECODER + r"norm1\.(.+)", r"head.decoder.\1.norm2.\2"),  # theirs are numbered in the order of construction
    (_DECODER + r"norm2\.(.+)", r"head.decoder.\1.norm1.\2"),
    (_DECODER + r"norm3\.(.+)", r"head.decoder.\1.ffn.norm.\2"),
    (_DECODER + r"(linear[12]\..+)", r"head.decoder.\1.ffn.\2"),
    (r"(class_embed\..+)", r"head.\1"),
    *((rf"(bbox_embed\.\d+)\.layers\.{i}\.(.+)", rf"head.\1.{3 * i}.\2") for i in range(3)),
)
"""Without the names that stand for a tensor of another name (see `without_copies`)."""

MM_PANOPTIC: Rules = (
    *(
        (theirs, ours.replace("head.", "head.detector.", 1))
        for theirs, ours in MM_MASK_RCNN
        if ours.startswith("head.")
    ),
    *MM_PYRAMID,
    *(
        (
            rf"semantic_head\.conv_upsample_layers\.(\d)\.conv\.{step}\.{theirs}\.(.+)",
            rf"head.branches.\1.{2 * step}.{ours}.\2",
        )
        for step in range(3)
        for ours, theirs in enumerate(("conv", "gn"))
    ),
    (r"semantic_head\.conv_logits\.(.+)", r"head.classifier.\1"),
)
"""Panoptic FPN, whose box branch has two linear layers."""


def without_copies(state: Mapping[str, Tensor], *, shared: bool) -> dict[str, Tensor]:
    """Return a checkpoint of Deformable DETR without names that stand for a tensor of another name.

    Args:
        state: tensors by published name.
        shared: whether the layers of the decoder have their predictors in common.

    Raises:
        UserError: if such a copy differs.
    """
    kept = {}
    for key, tensor in state.items():
        owner = key.removeprefix("transformer.decoder.") if re.search(r"decoder\.(class|bbox)_embed\.", key) else key
        owner = re.sub(r"^(class|bbox)_embed\.\d+", r"\1_embed.0", owner) if shared else owner
        if owner == key or owner not in state:
            kept[key] = tensor
        elif not torch.equal(tensor, state[owner]):
            raise UserError(
                f"{key} and {owner} are one tensor in this network, but differ in the checkpoint: name the variant of "
                "Deformable DETR that it holds"
            )
    return kept


def laid_out(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring renamed tensors into our layout: class scores of regions have the background first instead of last."""
    return {name: tensor.roll(1, 0) if ".box_predictor.scores." in name else tensor for name, tensor in state.items()}
