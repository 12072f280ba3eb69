"""Published detectors, registered in `DENSE`: rows of the tables of MPViT, ViTAEv2 and ScalableViT.

MPViT's are detectron2's and the authors' Deformable DETR, the others mmdetection's. ScalableViT published no
configuration of detection; mmdetection's own agree with its totals.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nasmvt.families.reference import State, rename
from nasmvt.heads import detector_names
from nasmvt.heads.detector_names import Rules
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.published import DENSE, Dense, HeadConverter

_RETINANET = {"type": "retinanet", "width": 256, "pre_nms": 1000}
_REGIONS = {
    "width": 256,
    "box_convs": 0,
    "box_linears": 2,
    "box_hidden": 1024,
    "mask_convs": 4,
    "rpn_batch": 256,
    "roi_batch": 512,
    "pre_nms": (2000, 1000),
    "post_nms": (1000, 1000),
}
_MASK_RCNN = {"type": "mask_rcnn", **_REGIONS}
_CASCADE = {"type": "cascade_mask_rcnn", **_REGIONS, "post_nms": (2000, 1000)}
_CASCADE_OF_MPVIT = {
    **_CASCADE,
    "convention": "detectron2",
    "weights": (1.0, 1.0, 1.0),
    "stds": ((1 / 10, 1 / 10, 1 / 5, 1 / 5), (1 / 20, 1 / 20, 1 / 10, 1 / 10), (1 / 30, 1 / 30, 1 / 15, 1 / 15)),
    "box_loss": "l1",
    "box_weight": 1.0,
    "shared_box": True,
    "mask_stages": 1,
}
_CASCADE_OF_VITAE = {**_CASCADE, "convention": "mmdetection", "box_convs": 4, "box_linears": 1}
_DETR = {
    "type": "deformable_detr",
    "width": 256,
    "heads": 8,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "hidden": 1024,
    "queries": 300,
}
_COCO_IDS = 91
"""Outputs of the authors' Deformable DETR: labels are COCO's category ids, of which some are never used."""


def _by(rules: Rules) -> HeadConverter:
    def convert(state: State, network: TaskNetwork) -> dict[str, Tensor]:
        return detector_names.laid_out(rename(state, rules))

    return convert


def _retinanet_of_d2(state: State, network: TaskNetwork) -> dict[str, Tensor]:
    """Convert; the running normaliser, which detectron2 does not save, starts again."""
    return {"head.normalizer": torch.tensor(100.0), **rename(state, detector_names.D2_RETINANET)}


def _deformable_detr(state: State, network: TaskNetwork) -> dict[str, Tensor]:
    """Convert; predictors that are one tensor under several names are taken once."""
    kept = detector_names.without_copies(state, shared=not network.head.refinement)
    return rename(kept, detector_names.DEFORMABLE_DETR)


def _add(name: str, backbone: str, head: Mapping[str, Any], convert: HeadConverter, **where: Any) -> None:
    DENSE.add(name, Dense(backbone=backbone, kind="detection", head=head, convert=convert, **where), __name__)


_where: dict[str, Any]
_D2, _MM = {"convention": "detectron2"}, {"convention": "mmdetection"}
for _size in ("tiny", "xsmall", "small", "base"):
    _name, _where = f"mpvit_{_size}", {"prefix": "backbone.bottom_up."}
    _add(f"retinanet_{_name}", _name, _RETINANET | _D2, _retinanet_of_d2, **_where)
    _add(f"mask_rcnn_{_name}", _name, _MASK_RCNN | _D2, _by(detector_names.D2_MASK_RCNN), **_where)
    if _size in ("small", "base"):
        _add(f"cascade_mask_rcnn_{_name}", _name, _CASCADE_OF_MPVIT, _by(detector_names.D2_CASCADE), **_where)

for _variant, _changes in (
    ("", {}),
    ("_refined", {"refinement": True}),
    ("_two_stage", {"refinement": True, "two_stage": True}),
):
    _add(
        f"deformable_detr{_variant}_mpvit_small",
        "mpvit_small",
        _DETR | _changes,
        _deformable_detr,
        prefix="backbone.0.backbone.",
        classes=_COCO_IDS,
    )

_add("mask_rcnn_vitae_v2_s", "vitae_v2_s", _MASK_RCNN | _MM, _by(detector_names.MM_MASK_RCNN))
_add("cascade_mask_rcnn_vitae_v2_s", "vitae_v2_s", _CASCADE_OF_VITAE, _by(detector_names.MM_CASCADE))

for _size in ("small", "base", "large"):
    _name, _where = f"scalable_vit_{_size}", {"sizes": {"final_norm": False}}
    _add(f"retinanet_{_name}", _name, _RETINANET | _MM, _by(detector_names.MM_RETINANET), **_where)
    _add(f"mask_rcnn_{_name}", _name, _MASK_RCNN | _MM, _by(detector_names.MM_MASK_RCNN), **_where)
