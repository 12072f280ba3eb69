from functools import partial

import pytest
import torch

from nasmvt.errors import UserError
from nasmvt.heads import (
    FeaturePyramid,
    MultiScaleNeck,
    SameMaps,
    SimpleFeaturePyramid,
    detection_neck,
    segmentation_neck,
)
from nasmvt.heads.necks import ConvLevels


def test_simple_pyramid_has_the_declared_strides_and_widths() -> None:
    neck = SimpleFeaturePyramid(8, 16, out_width=6)
    maps = neck((torch.randn(2, 8, 4, 6),))
    assert neck.strides == (4, 8, 16, 32, 64)
    assert neck.widths == (6,) * 5
    assert [tuple(m.shape) for m in maps] == [(2, 6, 64 // s, 96 // s + (s == 64)) for s in neck.strides]
    assert torch.equal(maps[4], maps[3][:, :, ::2, ::2])


def test_simple_pyramid_reads_the_last_map_and_ends_without_activation() -> None:
    neck = SimpleFeaturePyramid(8, 16, 6, scales=(2, 1), top=None)
    last = torch.randn(2, 8, 4, 4)
    maps = neck((torch.full_like(last, float("nan")), last))
    assert neck.strides == (8, 16)
    assert all(m.isfinite().all() and (m < 0).any() for m in maps)


def test_multi_scale_neck_resizes_each_map() -> None:
    neck = MultiScaleNeck(8, 16)
    maps = [torch.randn(1, 8, 4, 4) for _ in range(4)]
    out = neck(maps)
    assert neck.strides == (4, 8, 16, 32)
    assert [tuple(m.shape[2:]) for m in out] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    changed = neck([maps[0], maps[1] + 1, maps[2], maps[3]])
    assert [torch.equal(a, b) for a, b in zip(out, changed, strict=True)] == [True, False, True, True]


def test_multi_scale_neck_makes_every_scale_of_a_single_map() -> None:
    neck = MultiScaleNeck(8, 16)
    only = torch.randn(1, 8, 4, 4)
    assert all(torch.equal(a, b) for a, b in zip(neck((only,)), neck((only,) * 4), strict=True))


@pytest.mark.parametrize("scale", [3, 0, -1, 32])
def test_a_scale_must_be_a_power_of_two_that_divides_the_stride(scale: float) -> None:
    with pytest.raises(UserError, match=f"divides the stride 16.*{scale}"):
        MultiScaleNeck(8, 16, scales=(scale,))


def test_the_neck_is_chosen_by_what_the_backbone_declares() -> None:
    assert isinstance(detection_neck((8,), (16,), 6), SimpleFeaturePyramid)
    fpn = detection_neck((4, 8, 16, 32), (4, 8, 16, 32), 6)
    assert isinstance(fpn, FeaturePyramid)
    assert fpn.strides == (4, 8, 16, 32, 64)
    maps = fpn([torch.randn(1, w, 128 // s, 128 // s) for w, s in ((4, 4), (8, 8), (16, 16), (32, 32))])
    assert [tuple(m.shape) for m in maps] == [(1, 6, 128 // s, 128 // s) for s in fpn.strides]

    assert isinstance(segmentation_neck((8,) * 4, (16,) * 4), MultiScaleNeck)
    assert isinstance(segmentation_neck((8,), (16,)), MultiScaleNeck)
    same = segmentation_neck((4, 8), (4, 8))
    assert isinstance(same, SameMaps)
    assert same.widths == (4, 8)


def test_maps_that_no_neck_fits_are_refused() -> None:
    with pytest.raises(UserError, match="ascending strides"):
        detection_neck((8, 8), (16, 16))
    with pytest.raises(UserError, match="one width and stride"):
        segmentation_neck((8, 8, 8), (16, 16, 16))
    with pytest.raises(UserError, match="one width and stride"):
        segmentation_neck((8, 8, 8, 9), (16, 16, 16, 16))


def test_a_detector_reads_the_maps_of_the_strides_it_asks_for_and_refuses_others() -> None:
    top = partial(ConvLevels, relu=False)
    neck = detection_neck((4, 8, 16, 6), (4, 8, 16, 32), 6, (8, 16, 32), top, only=True)
    assert neck.strides == (8, 16, 32, 64, 128)
    levels = neck([torch.randn(1, width, side, side) for width, side in ((4, 16), (8, 8), (16, 4), (6, 2))])
    assert [level.shape[-1] for level in levels] == [8, 4, 2, 1, 1]
    # both levels above read the last map, though it has as many channels as the pyramid
    last = torch.ones(1, 6, 2, 2)
    zeros = [torch.zeros(1, width, side, side) for width, side in ((4, 16), (8, 8), (16, 4))]
    assert torch.equal(neck([*zeros, last])[3], neck.fpn.extra_blocks.p6(last))
    with pytest.raises(UserError, match=r"reads one map of each of the strides \(8, 16, 32\), but the backbone gives"):
        detection_neck((8, 8), (4, 8), 6, (8, 16, 32), top, only=True)
