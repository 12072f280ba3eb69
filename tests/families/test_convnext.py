"""ConvNeXt against timm's."""

import pytest
import timm
import torch

from nasmvt.errors import UserError
from nasmvt.families import family, published
from nasmvt.families.layers import Classifier, MeanLinear
from nasmvt.space import load_space
from tests.families.timm_reference import check_close, check_outputs, random_timm

SIZES = [(64, 64), (75, 98), (96, 64)]


@pytest.fixture(scope="module")
def reference():
    return random_timm("convnext_tiny")


def test_outputs_are_timms(reference) -> None:
    check_outputs("convnext_tiny", reference, SIZES)


def test_maps_are_timms(reference) -> None:
    ours = published("convnext_tiny", classes=None, pooled=False).eval()
    ours.load_state_dict({key: reference.state_dict()[key] for key in ours.state_dict()})
    assert ours.strides == (4, 8, 16, 32)
    for size in SIZES:
        images = torch.randn(1, 3, *size)
        with torch.no_grad():
            theirs = reference.forward_intermediates(images, intermediates_only=True)
            for got, want in zip(ours(images), theirs, strict=True):
                check_close(got, want)


def test_the_named_arch_counts_what_timm_counts() -> None:
    space = load_space("convnext_tiny")
    with torch.device("meta"):
        backbone = family("convnext").build(
            space.named("published"), kind="classification", image_size=(224, 224), **space.fixed
        )
        ours = Classifier(backbone, MeanLinear(768, 1000))
        theirs = timm.create_model("convnext_tiny")
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) == 28_589_128


@pytest.mark.parametrize("name", ["convnextv2_atto", "convnext_atto"])
def test_other_versions_are_timms(name) -> None:
    """V2 with its response norm, and small ones whose MLPs timm has as convolutions."""
    check_outputs(name, random_timm(name), SIZES[:2])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("convnext_atto_ols", "patches that overlap"),
        ("convnext_tiny_hnf", "the layers ClassifierHead"),
        ("convnext_large_mlp", "hidden units in its classifier"),
        ("convnext_atto_rms", "the layers RmsNorm2d"),
    ],
)
def test_networks_of_timm_with_other_parts_are_refused(name, reason) -> None:
    with pytest.raises(UserError, match=f"has {reason}"):
        published(name)


def test_weights_of_the_second_version_are_refused_for_the_first() -> None:
    with pytest.raises(UserError, match=r"missing: backbone\.stages\.0\.blocks\.0\.gamma.* surplus: .*mlp\.grn\."):
        published("convnext_tiny", weights=timm.create_model("convnextv2_tiny").state_dict())
