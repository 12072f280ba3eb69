"""The heads have exactly the parameters of ViT-MVT's released code."""

import pytest
import torch
from torch import nn

from nasmvt.families.scalable_vit import MlpHead
from nasmvt.heads import (
    CascadeMaskRCNNHead,
    DeformableDETRHead,
    FCNHead,
    FeaturePyramid,
    LinearHead,
    MaskRCNNHead,
    MultiScaleNeck,
    RetinaNetHead,
    SimpleFeaturePyramid,
    UPerNetHead,
)
from nasmvt.heads.necks import ConvLevels, ProjectedLevels


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


def test_published_detectors() -> None:
    pyramid = (4, 8, 16, 32, 64)
    with torch.device("meta"):
        retinanet = RetinaNetHead((8, 16, 32, 64, 128), 80)
        levels = ConvLevels(288, 256)
        two_linear = MaskRCNNHead(pyramid, 80, rpn_convs=1, box_convs=0, box_linears=2)
        cascade = CascadeMaskRCNNHead(pyramid, 80)
        fpn = FeaturePyramid((64, 128, 256, 512), (4, 8, 16, 32))
        levels_of_detr = ProjectedLevels((216, 288, 288), (8, 16, 32))
        detr = DeformableDETRHead(8, 91)
        refined = DeformableDETRHead(8, 91, refinement=True)
        two_stage = DeformableDETRHead(8, 91, refinement=True, two_stage=True)
    assert count(retinanet) == 6_463_220
    assert count(levels) == 2304 * 288 + 256 + 590_080
    assert count(two_linear.rpn) == 593_935
    assert count(two_linear.roi_heads.box_head, two_linear.roi_heads.box_predictor) == 14_306_705
    assert count(two_linear.roi_heads) - 14_306_705 == 2_643_280
    assert count(cascade) == 593_935 + 3 * 15_618_449 + 3 * 2_643_280
    assert count(fpn) == 256 * 960 + 256 * 4 + 590_080 * 4
    assert count(levels_of_detr, detr) == 11_844_961
    assert count(refined) - count(detr) == 35_228_356 - 34_448_361
    assert count(two_stage) - count(detr) == 35_560_225 - 34_448_361


def test_the_mlp_of_scalable_vit_computes_what_its_published_classifier_does() -> None:
    published = MlpHead(12, 7, hidden=20)
    head = LinearHead(12, 7, hidden=20)
    head.fc.load_state_dict(published.state_dict())
    maps = [torch.randn(3, 12, 4, 5)]
    assert torch.equal(head.eval()(maps), published(maps))
