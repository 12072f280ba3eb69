"""Channels of widths are put in the order of importance, and networks with their heads compute what they computed."""

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from nasmvt.config import parse
from nasmvt.drafting import draft
from nasmvt.errors import UserError
from nasmvt.space import SearchSpace
from nasmvt.supernet import Supernet
from nasmvt.supernet.importance import SCORES, by_magnitude, gather_gradients
from nasmvt.supernet.widths import put_widths_in_order
from tests.conftest import make_tasks, randomize
from tests.families.small_spaces import SMALL
from tests.supernet.test_every_head import SETTINGS, make_task
from tests.supernet.test_importance import batch_of

WIDTHS = {
    "vit_mvt_nano": ["embed_dim"],
    "vit": ["embed_dim"],
    "convnext": ["embed_dim1", "embed_dim2", "embed_dim3", "embed_dim4"],
}


def made(space, tasks) -> Supernet:
    supernet = Supernet(space, tasks)
    randomize(supernet)
    return supernet


def computed(supernet: Supernet) -> dict[tuple[str, str], list[Tensor]]:
    """What heads compute, with all layers shared and with none."""
    found = {}
    for rule in ("all", "none"):
        model = supernet.materialize(supernet.space.largest, supernet.sharing(rule)).double().eval()
        for task in supernet.tasks:
            image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            with torch.no_grad():
                leaves = tree_leaves(model.task(task)(image))
            found[rule, task] = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    return found


def assert_same(now: dict, before: dict) -> None:
    for place, tensors in now.items():
        for one, other in zip(tensors, before[place], strict=True):
            assert one.shape == other.shape
            assert float((one - other).abs().max()) <= 1e-6 * float(other.abs().max())


@pytest.mark.parametrize("by", SCORES)
@pytest.mark.parametrize("name", WIDTHS)
def test_the_largest_networks_compute_the_same_with_their_heads(name, by) -> None:
    """Whatever the tasks share, and not because nothing has moved."""
    net = made(SMALL[name], make_tasks())
    before, stored = computed(net), {key: tensor.clone() for key, tensor in net.state_dict().items()}
    if by == "taylor":
        gather_gradients(net, [(n, batch_of(task.config.kind)) for n, task in net.tasks.items()])
    assert put_widths_in_order(net, SCORES[by], required=True) == (WIDTHS[name], [])
    moved = {key for key, tensor in net.state_dict().items() if not torch.equal(tensor, stored[key])}
    assert {key.split(".")[2] for key in moved if key.startswith("networks.")} >= {"backbone", "neck"}
    assert any(key.startswith("shared.") for key in moved)
    assert "networks.cls.head.fc.weight" in moved
    assert_same(computed(net), before)


def test_the_first_channels_are_those_that_more_is_read_of() -> None:
    """By blocks and by the head; gradients go along."""
    net = made(SMALL["convnext"], {"cls": make_tasks()["cls"]})
    gather_gradients(net, [("cls", batch_of("classification"))])
    network = net.networks["cls"]
    weight = network.head.fc.weight
    pairs = dict(zip(weight[0].tolist(), weight.grad[0].tolist(), strict=True))
    put_widths_in_order(net, by_magnitude, required=True)
    assert list(pairs) != weight[0].tolist()
    assert pairs == dict(zip(weight[0].tolist(), weight.grad[0].tolist(), strict=True))
    readers = [weight, *(block.mlp.fc1.weight for block in network.backbone.stages[3].blocks)]
    sizes = torch.cat([tensor.detach().abs() for tensor in readers]).sum(0)
    torch.testing.assert_close(sizes, sizes.sort(descending=True).values)


@pytest.mark.parametrize("head", SETTINGS)
def test_heads_of_every_kind(head) -> None:
    """Class attention has the channels in heads of attention: their order is not free, and nothing is left changed."""
    net = made(SMALL["convnext"], {head: make_task(head)})
    before, stored = computed(net), {key: tensor.clone() for key, tensor in net.state_dict().items()}
    ordered, left = put_widths_in_order(net, by_magnitude, required=False)
    assert (ordered, left) == (
        (WIDTHS["convnext"][:3], ["embed_dim4"]) if head == "class_attention" else (WIDTHS["convnext"], [])
    )
    assert_same(computed(net), before)
    if left:
        last = [key for key in stored if key.startswith(f"networks.{head}.head.")]
        assert all(torch.equal(net.state_dict()[key], stored[key]) for key in last)
        with pytest.raises(UserError, match=r"but one depends on that of embed_dim4: leave it out"):
            put_widths_in_order(net, by_magnitude, required=True)


def test_widths_that_are_rounded() -> None:
    space = SMALL["vit"]
    values = space.model_dump() | {"round_to": 8, "choices": {**space.model_dump()["choices"], "embed_dim": [15, 25]}}
    net = made(parse(SearchSpace, values, "rounded"), {"seg": make_tasks()["seg"]})
    before = computed(net)
    assert put_widths_in_order(net, by_magnitude, required=True) == (["embed_dim"], [])
    assert_same(computed(net), before)


def test_a_drafted_space() -> None:
    drafted = draft("test_vit")
    tasks = {name: task for name, task in make_tasks().items() if name != "det"}
    net = made(drafted.space("mine"), tasks)
    before = computed(net)
    ordered, left = put_widths_in_order(net, by_magnitude, required=True)
    assert len(ordered) == 1
    assert left == []
    assert_same(computed(net), before)


def test_a_family_without_widths_is_refused_where_it_is_asked_for() -> None:
    net = made(SMALL["efficientnet"], make_tasks())
    assert put_widths_in_order(net, by_magnitude, required=False) == ([], [])
    with pytest.raises(UserError, match=r"the family efficientnet declares none for efficientnet_small: leave it out"):
        put_widths_in_order(net, by_magnitude, required=True)
