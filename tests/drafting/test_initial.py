"""Drafted spaces begin with published weights: a file of a timm network with random weights is the reference."""

import sys
from types import SimpleNamespace

import pytest
import timm
import torch
from draft_space import make_tasks
from safetensors.torch import save_file

from nasmvt.drafting import draft
from nasmvt.errors import UserError
from nasmvt.pipeline.initial import read_initial
from nasmvt.supernet import InitialConfig, Supernet
from nasmvt.supernet.initial import begin_with
from tests.families.timm_reference import random_timm

SIDES = {"test_vit": 96, "test_convnext": 64}


@pytest.mark.parametrize("name", SIDES)
def test_the_published_subnet_computes_what_the_file_computes(name, tmp_path) -> None:
    """At another size than the published 160 pixels, for which timm resizes its table of positions."""
    reference, side = random_timm(name), SIDES[name]
    save_file(reference.state_dict(), tmp_path / "timm.safetensors")
    drafted = draft(name)
    supernet = Supernet(drafted.space(name), make_tasks(drafted, side))
    filled = begin_with(supernet, read_initial(InitialConfig(weights=str(tmp_path / "timm.safetensors")), supernet))
    assert all(part == whole for part, whole in filled.backbones.values())
    assert not filled.fresh
    size = {"img_size": side} if drafted.values["fixed"].get("sized") else {}
    theirs = timm.create_model(name, **size).eval()
    resize = getattr(sys.modules[type(theirs).__module__], "checkpoint_filter_fn", lambda state, _: state)
    theirs.load_state_dict(resize(reference.state_dict(), theirs))
    model = supernet.materialize(supernet.space.named("published"))
    images = torch.rand(2, 3, side, side)
    with torch.inference_mode():
        features = model.task("cls").eval().backbone(images)[-1].mean((2, 3))
        assert torch.equal(features, theirs.forward_head(theirs.forward_features(images), pre_logits=True))
        backbone = model.task("seg").eval().backbone
        options = {"norm": True} if backbone.norm else {}
        maps = theirs.forward_intermediates(images, list(backbone.indices), intermediates_only=True, **options)
        assert all(torch.equal(ours, map) for ours, map in zip(backbone(images), maps, strict=True))


def test_timm_is_asked_by_the_name_that_was_drafted(monkeypatch) -> None:
    drafted = draft("test_resnet")
    supernet = Supernet(drafted.space("r"), {"cls": make_tasks(drafted, 64)["cls"]})
    reference = random_timm("test_resnet")
    downloads = SimpleNamespace(is_model=timm.is_model, create_model=lambda name, pretrained=False: reference)
    monkeypatch.setattr("nasmvt.pipeline.initial.timm", downloads)
    initial = read_initial(InitialConfig(weights="timm", model="test_resnet.r160_in1k"), supernet)
    assert torch.equal(initial.tensors["cls"]["backbone.net.layer4.0.conv1.weight"], reference.layer4[0].conv1.weight)
    reference.act1 = torch.nn.Identity()
    with pytest.raises(UserError, match=r"must compute what test_resnet\.r160_in1k computes, .* other features"):
        read_initial(InitialConfig(weights="timm", model="test_resnet.r160_in1k"), supernet)


def test_the_file_of_another_network_is_refused(tmp_path) -> None:
    drafted = draft("test_resnet")
    supernet = Supernet(drafted.space("r"), {"cls": make_tasks(drafted, 64)["cls"]})
    save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"other\.safetensors is none of r \(published, largest\)"):
        read_initial(InitialConfig(weights=str(tmp_path / "other.safetensors")), supernet)
