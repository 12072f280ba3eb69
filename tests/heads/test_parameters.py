"""The heads have exactly the parameters of ViT-MVT's released code."""

import pytest
import torch
from torch import nn

from nasmvt.heads import FCNHead, LinearHead, MaskRCNNHead, MultiScaleNeck, SimpleFeaturePyramid, UPerNetHead


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("width", "pyramid", "neck", "upernet", "auxiliary", "linear"),
    [
        (216, 3_145_528, 1_867_968, 34_936_854, 536_726, 217_000),
        (384, 4_528_000, 5_901_312, 36_485_142, 923_798, 385_000),
        (576, 6_937_408, 13_275_648, 38_254_614, 1_366_166, 577_000),
    ],
)
def test_heads_by_width(width: int, pyramid: int, neck: int, upernet: int, auxiliary: int, linear: int) -> None:
    with torch.device("meta"):
        assert count(SimpleFeaturePyramid(width, 16)) == pyramid
        assert count(MultiScaleNeck(width)) == neck
        assert count(UPerNetHead((width,) * 4, 150)) == upernet
        assert count(FCNHead((width,), 150)) == auxiliary
        assert count(LinearHead(width, 1000)) == linear


def test_mask_rcnn() -> None:
    with torch.device("meta"):
        head = MaskRCNNHead((4, 8, 16, 32, 64), 80)
        boxes_only = MaskRCNNHead((4, 8, 16, 32, 64), 80, masks=False)
    regions = head.roi_heads
    assert count(head.rpn) == 1_184_015
    assert count(regions.box_head, regions.box_predictor) == 15_618_449
    assert count(regions.mask_head, regions.mask_predictor) == 2_643_280
    assert count(boxes_only) == 1_184_015 + 15_618_449
