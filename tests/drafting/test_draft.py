"""Drafted spaces of timm's smallest networks: what varies, and that the published arch is timm's network."""

import pytest
import torch
from draft_space import check, equals_timm, make_tasks, side_of

from nasmvt.config import parse
from nasmvt.drafting import draft
from nasmvt.errors import UserError
from nasmvt.space import SearchSpace
from nasmvt.supernet import Supernet, SupernetConfig
from tests.conftest import randomize


@pytest.fixture(scope="module")
def vit():
    return draft("test_vit.r160_in1k")


def test_a_transformer_varies_in_depth_width_heads_and_hidden_width(vit) -> None:
    choices = vit.space("vit").choices
    assert {name: choice.options for name, choice in choices.items()} == {
        "blocks_depth": (4, 6),
        "blocks_width": (32, 48, 64),
        "blocks_attn_heads": (1, 2),
        "blocks_mlp_fc1": (96, 144, 192),
    }
    units = vit.values["fixed"]["units"]["blocks_attn_heads"]
    assert units["tensors"]["blocks.*.attn.qkv.weight"] == [0, 3, 32]
    assert units["tensors"]["blocks.*.attn.proj.weight"] == [1, 1, 32]
    assert units["attributes"] == {"blocks.*.attn.num_heads": 1, "blocks.*.attn.attn_dim": 32}


@pytest.mark.parametrize("side", [64, 96])
def test_the_published_arch_computes_what_timm_computes(vit, side) -> None:
    assert equals_timm(vit, vit.space("vit"), side)


def test_subnets_keep_whole_heads(vit) -> None:
    """One head of two: the result is that of the large network whose second head reaches nothing."""
    space = vit.space("vit")
    tasks = {"cls": make_tasks(vit, 64)["cls"]}
    supernet = Supernet(space, tasks, SupernetConfig(score_start=0.0))
    randomize(supernet)
    few = space.arch({**space.archs["published"], "blocks_attn_heads": [1] * 6})
    images = torch.rand(2, 3, 64, 64)
    small = supernet.materialize(few).task("cls").eval()(images)
    large = supernet.materialize(space.largest).task("cls").eval()
    with torch.no_grad():
        for block in large.backbone.net.blocks:
            block.attn.proj.weight[:, block.attn.head_dim :] = 0
    assert torch.allclose(small, large(images), atol=1e-5)


def test_a_convolutional_network_passes_every_check() -> None:
    found = check("test_efficientnet")
    assert (found.equal, found.exact, found.trains) == (True, True, True)
    assert found.choices > 6


def test_networks_lend_what_they_are_built_of(vit) -> None:
    space, side = vit.space("vit"), side_of(vit)
    supernet = Supernet(space, make_tasks(vit, side))
    network = supernet.subnet(space.smallest, "seg")
    assert network.backbone.widths == (32,) * 4
    assert len(network.backbone.net.blocks) == 4
    assert supernet.lenders["seg"].opaque is None


def test_a_file_that_was_changed_badly_is_refused(vit) -> None:
    values = {"name": "mine", **vit.values}
    lacking = {**values["fixed"], "units": {}}
    with pytest.raises(UserError, match="family timm needs the choices blocks_depth, but mine has"):
        Supernet(parse(SearchSpace, {**values, "fixed": lacking}, "mine"), make_tasks(vit, 64))
    nameless = {key: value for key, value in values["fixed"].items() if key != "model"}
    with pytest.raises(UserError, match="family timm needs 'model' among the fixed sizes of mine: add it"):
        Supernet(parse(SearchSpace, {**values, "fixed": nameless}, "mine"), make_tasks(vit, 64))
