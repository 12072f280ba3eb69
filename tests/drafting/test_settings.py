"""Settings that work by unit or by block, for drafted spaces: order of importance, layer-wise decay, checkpointing."""

import pytest
import torch
from draft_space import make_tasks

from nasmvt.drafting import draft
from nasmvt.errors import UserError
from nasmvt.model import MultiTaskModel
from nasmvt.space import SearchSpace, Sharing
from nasmvt.supernet import Supernet
from nasmvt.supernet.importance import by_magnitude, put_in_order
from nasmvt.tasks.blocks import blocks_of
from nasmvt.tasks.build import build_network
from nasmvt.training import TrainingConfig
from nasmvt.training.selection import selected
from tests.conftest import randomize
from tests.supernet.test_importance import outputs
from tests.tasks.test_blocks import assert_recomputed

NAMES = ("test_vit", "test_convnext")


@pytest.fixture(scope="module", params=NAMES)
def drafted(request):
    return draft(request.param)


def test_hidden_units_and_heads_are_put_in_order(drafted) -> None:
    """The largest networks compute the same; what reads a unit has less and less to say."""
    tasks = make_tasks(drafted, 32)
    supernet = Supernet(drafted.space("mine"), {name: tasks[name] for name in ("cls", "seg")})
    randomize(supernet)
    before, stored = outputs(supernet), {key: tensor.clone() for key, tensor in supernet.state_dict().items()}
    assert put_in_order(supernet, by_magnitude) > 3
    moved = {key for key, tensor in supernet.state_dict().items() if not torch.equal(tensor, stored[key])}
    if drafted.values["fixed"]["model"] == "test_vit":
        name = "backbone.net.blocks.0.mlp.fc2.weight"
        readers = [
            supernet.shared[name.replace(".", "/")],
            *(n.get_parameter(name) for n in supernet.networks.values()),
        ]
        sizes = torch.stack([tensor.detach().abs().sum(0) for tensor in readers]).sum(0)
        assert torch.equal(sizes, sizes.sort(descending=True).values)
        assert {leaf for leaf in ("qkv", "proj") if any(f"attn/{leaf}" in key for key in moved)} == {"qkv", "proj"}
    for place, maps in outputs(supernet).items():
        for now, was in zip(maps, before[place], strict=True):
            assert float((now - was).abs().max() / was.abs().max()) <= 1e-6


def test_learning_rates_decay_from_block_to_block(drafted) -> None:
    space = drafted.space("mine")
    model = MultiTaskModel.fresh(space, {"cls": make_tasks(drafted, 32)["cls"]}, space.largest, Sharing.of({}))
    scales = {item.plain: item.scale for item in selected(model, TrainingConfig(layer_decay=0.5))}
    in_blocks = {key: scale for key, scale in scales.items() if blocks_of(space, "it").match(key)}
    found = list(dict.fromkeys(in_blocks.values()))
    assert found == [0.5**depth for depth in range(len(found), 0, -1)]
    assert len(found) == sum(space.largest[name] for name in drafted.values["fixed"]["depths"])
    assert scales["head.fc.weight"] == 1


def test_blocks_are_recomputed_with_the_same_gradients(drafted) -> None:
    space = drafted.space("mine")
    network = build_network(space, make_tasks(drafted, 32)["cls"], space.largest).train()
    randomize(network)
    assert_recomputed(network, "classification", blocks_of(space, "it"))


def test_a_space_whose_depth_is_fixed_has_no_blocks(drafted) -> None:
    values = drafted.values
    choices = {name: choice for name, choice in values["choices"].items() if not name.endswith("_depth")}
    fixed = {**values["fixed"], "depths": {}}
    space = SearchSpace.model_construct(**{**dict(drafted.space("mine")), "fixed": fixed, "choices": choices})
    with pytest.raises(UserError, match=r"layer_decay works by block, but the family timm names none of mine"):
        blocks_of(space, "training.layer_decay")
