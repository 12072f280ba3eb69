"""EfficientNet against timm's, and how its kernels lie in the store."""

import pytest
import timm
import torch

from nasmvt.errors import UserError
from nasmvt.families import EfficientNet, family, published
from nasmvt.families.layers import Classifier, MeanLinear
from nasmvt.space import load_space
from tests.families.timm_reference import check_close, check_outputs, random_timm

SIZES = [(64, 64), (75, 98)]


@pytest.mark.parametrize(
    "name",
    ["efficientnet_lite0", "tf_efficientnet_lite0", "tf_efficientnet_b0", "efficientnet_b1", "tf_efficientnet_lite2"],
)
def test_outputs_are_timms(name) -> None:
    check_outputs(name, random_timm(name), SIZES)


def test_maps_are_timms() -> None:
    """The four maps of a dense task, at every stride."""
    reference = random_timm("tf_efficientnet_lite0")
    maps = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    maps.load_state_dict({key: reference.state_dict()[key] for key in maps.state_dict()})
    space = load_space("efficientnet_lite0")
    ours = family("efficientnet").build(space.named("published"), kind="detection", image_size=(64, 64), **space.fixed)
    ours.load_state_dict({key: reference.state_dict()[key] for key in ours.state_dict()})
    assert (ours.strides, ours.widths) == ((4, 8, 16, 32), (24, 40, 112, 320))
    for size in SIZES:
        images = torch.randn(1, 3, *size)
        with torch.no_grad():
            for got, want in zip(ours.eval()(images), maps(images), strict=True):
                check_close(got, want)


def test_the_named_arch_counts_what_timm_counts() -> None:
    space = load_space("efficientnet_lite0")
    build = family("efficientnet").build
    with torch.device("meta"):
        backbone = build(space.named("published"), kind="classification", image_size=(224, 224), **space.fixed)
        ours = Classifier(backbone, MeanLinear(1280, 1000))
        theirs = timm.create_model("tf_efficientnet_lite0")
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) == 4_652_008


def test_only_kernels_are_centred() -> None:
    known = family("efficientnet")
    assert known.centred_dims("backbone.blocks.3.1.conv_dw.weight") == (2, 3)
    assert known.centred_dims("backbone.blocks.3.1.conv_pw.weight") == ()


def test_sizes_that_contradict_one_another_are_refused() -> None:
    with pytest.raises(UserError, match="needs 7 stages and a kernel size for each expansion"):
        EfficientNet(widths=(8,) * 7, expansions=[(1,)] * 7, kernel_sizes=[(3, 3)] * 7)


def test_other_sizes_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"missing: backbone\.blocks\.0\.1\.conv_dw\.weight"):
        published("efficientnet_b1", weights=random_timm("efficientnet_b0").state_dict())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("efficientnet_es", "the layers EdgeResidual"),
        ("efficientnet_b0_gn", "the layers GroupNormAct"),
        ("efficientnet_blur_b0", "the layers BlurPool2d"),
        ("efficientnet_cc_b0_4e", "the layers CondConv"),
        ("tf_efficientnetv2_b0", "the layers ConvBnAct, EdgeResidual"),
    ],
)
def test_networks_of_timm_with_other_parts_are_refused(name, reason) -> None:
    with pytest.raises(UserError, match=f"has {reason}"):
        published(name)
