"""Exported networks as timm's models: the checks of timm's tests/test_models.py that apply, and equal outputs.

By name, those of test_model_forward, test_model_backward, test_model_default_cfgs, test_model_load_pretrained,
test_model_features_pretrained, test_model_forward_features, test_model_forward_intermediates and
test_model_forward_intermediates_features. Its demand for four maps holds where a backbone has them. Left out are the
tests of TorchScript and of symbolic tracing (fx), which our backbones, whose Python reads shapes, do not go through:
test_model_forward_torchscript, test_model_forward_fx, test_model_backward_fx, test_model_forward_fx_torchscript.
"""

import numpy as np
import pytest
import timm
import torch

import nasmvt
import nasmvt.export.timm_model
from nasmvt.errors import UserError
from nasmvt.export import save
from tests.conftest import make_batch


@pytest.fixture
def folder(supernet, tmp_path):
    arch = supernet.space.sample(np.random.default_rng(0))
    save(supernet.materialize(arch), tmp_path / "model", metrics={}, split="none", seed=0)
    return tmp_path / "model"


def test_outputs_are_those_of_the_exported_network(folder):
    model = timm.create_model("nasmvt", folder=folder, pretrained=True).eval()
    network = nasmvt.load(folder).networks["cls"]
    images, _ = make_batch("classification", size=3)
    x = network.normalize(images)
    with torch.no_grad():
        assert torch.equal(model(x), network(images))
        assert torch.equal(model.forward_head(model.forward_features(x)), model(x))
        other = timm.create_model("nasmvt", folder=folder, pretrained=True, num_classes=7).eval()
        assert torch.equal(other.forward_features(x), model.forward_features(x))
        fresh = timm.create_model("nasmvt", folder=folder).eval()
        assert not torch.equal(fresh.forward_features(x), model.forward_features(x))
    assert other.num_classes == other(x).shape[1] == 7
    config = timm.data.resolve_data_config({}, model=model)
    assert config["mean"] == network.mean
    assert config["input_size"] == (3, 32, 32)
    assert model.no_weight_decay() == {"backbone.pos_embed"}


def test_every_parameter_gets_a_gradient(folder):
    model = timm.create_model("nasmvt", folder=folder, num_classes=42).train()
    outputs = model(torch.randn(2, 3, 32, 32))
    outputs.mean().backward()
    assert outputs.shape[-1] == 42
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_cfg_and_the_methods_are_as_timm_has_them(folder):
    model = timm.create_model("nasmvt", folder=folder).eval()
    cfg, names = model.default_cfg, set(model.state_dict())
    x = torch.randn(1, *cfg["input_size"])
    assert model.forward_features(x).shape[-2:] == cfg["pool_size"]
    model.reset_classifier(0)
    assert model(x).shape == (1, model.num_features)
    model.reset_classifier(0, "")
    assert model(x).shape[-2:] == cfg["pool_size"]
    assert {f"{cfg['classifier']}.weight", f"{cfg['first_conv']}.weight"} <= names
    bare = timm.create_model("nasmvt", folder=folder, num_classes=0, global_pool="").eval()
    assert bare(x).shape[-2:] == cfg["pool_size"]


def test_features_before_the_classifier(folder):
    model = timm.create_model("nasmvt", folder=folder, pretrained=True).eval()
    x = torch.randn(2, *model.default_cfg["input_size"])
    features = model.forward_features(x)
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, model.head_hidden_size)
    assert torch.equal(model.get_classifier()(pooled), model(x))
    assert timm.create_model("nasmvt", folder=folder, pretrained=True, num_classes=0).eval()(x).equal(pooled)


@pytest.mark.parametrize("wanted", [None, 2, [0, -1]])
def test_maps_alone_are_the_maps_of_the_model(folder, wanted):
    model = timm.create_model("nasmvt", folder=folder, pretrained=True).eval()
    given = {} if wanted is None else {"out_indices": wanted}
    maps = timm.create_model("nasmvt", folder=folder, pretrained=True, features_only=True, **given).eval()
    x = torch.randn(2, *model.default_cfg["input_size"])
    last, inner = model.forward_intermediates(x, indices=wanted)
    assert torch.equal(last, model.forward_features(x))
    found = maps(x)
    assert all(torch.equal(a, b) for a, b in zip(found, inner, strict=True))
    assert maps.feature_info.channels() == [one.shape[1] for one in found]
    assert maps.feature_info.reduction() == [x.shape[2] // one.shape[2] for one in found]
    assert not any("head" in name for name, _ in maps.named_parameters())


def test_what_is_no_timm_model_is_refused(folder):
    for given, sentence in (
        ({"task": "seg"}, "head of 'seg' is"),
        ({"in_chans": 1}, "in_chans is 1"),
        ({"global_pool": "max"}, "not 'max'"),
        ({"folder": None}, "pass folder="),
    ):
        with pytest.raises(UserError, match=sentence):
            timm.create_model("nasmvt", **{"folder": folder, **given})
