"""Units are put in the order of importance, and networks compute what they computed."""

import pytest
import torch

from nasmvt.data.types import Batch, ImageInfo
from nasmvt.errors import UserError
from nasmvt.supernet import Supernet
from nasmvt.supernet.importance import SCORES, by_magnitude, by_taylor, gather_gradients, put_in_order
from tests.conftest import make_batch, make_tasks, randomize
from tests.families.small_spaces import SMALL

WITH_AXES = ["vit_mvt_nano", "efficientnet", "vit", "convnext"]


def batch_of(kind: str) -> Batch:
    images, targets = make_batch(kind, 4)
    whole = [ImageInfo(id=number, size=(32, 32), valid=(32, 32)) for number in range(4)]
    return Batch(images=images, targets=targets, infos=whole)


def outputs(supernet: Supernet) -> dict[tuple[str, str], list[torch.Tensor]]:
    found = {}
    for rule in ("all", "none"):
        model = supernet.materialize(supernet.space.largest, supernet.sharing(rule))
        for task in supernet.tasks:
            backbone = model.task(task).eval().backbone
            with torch.no_grad():
                found[rule, task] = backbone(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    return found


@pytest.fixture(params=WITH_AXES)
def net(request) -> Supernet:
    made = Supernet(SMALL[request.param], make_tasks())
    randomize(made)
    return made


@pytest.mark.parametrize("by", SCORES)
def test_the_largest_networks_compute_the_same(net, by) -> None:
    """Whatever the tasks share, and not because nothing has moved."""
    before, stored = outputs(net), {key: tensor.clone() for key, tensor in net.state_dict().items()}
    batches = [(n, batch_of(task.config.kind)) for n, task in net.tasks.items()]
    gather_gradients(net, batches)
    assert all(torch.equal(tensor, stored[key]) for key, tensor in net.state_dict().items())
    assert put_in_order(net, SCORES[by]) > 3
    assert sum(not torch.equal(tensor, stored[key]) for key, tensor in net.state_dict().items()) > 20
    for place, maps in outputs(net).items():
        for now, was in zip(maps, before[place], strict=True):
            assert float((now - was).abs().max() / was.abs().max()) <= 1e-6


def test_units_lie_in_order_of_what_reads_them(supernet) -> None:
    put_in_order(supernet, by_magnitude)
    name = "backbone.blocks.0"
    sizes = torch.zeros(())
    for net in supernet.networks.values():
        sizes = sizes + net.get_parameter(f"{name}.fc2.weight").detach().abs().sum(0)
    sizes = sizes + supernet.shared[f"{name}.fc2.weight".replace(".", "/")].detach().abs().sum(0)
    assert torch.equal(sizes, sizes.sort(descending=True).values)


def test_a_head_moves_as_a_whole(supernet) -> None:
    """Block 0 has two heads of 8 channels; the second reads more."""
    name = "backbone.blocks.0.attn"
    stored = supernet.networks["seg"].get_submodule(name)
    readers = [net.get_parameter(f"{name}.proj.weight") for net in supernet.networks.values()]
    with torch.no_grad():
        for weight in (*readers, supernet.shared[f"{name}.proj.weight".replace(".", "/")]):
            weight[:, 8:] *= 10
    rows, columns, bias = (t.detach().clone() for t in (stored.qkv.weight, stored.proj.weight, stored.relative_bias))
    put_in_order(supernet, by_magnitude)
    assert torch.equal(stored.qkv.weight, torch.cat([rows[24:], rows[:24]]))
    assert torch.equal(stored.proj.weight, torch.cat([columns[:, 8:], columns[:, :8]], 1))
    assert torch.equal(stored.relative_bias, bias[:, [1, 0]])


def test_taylor_puts_a_unit_last_that_no_loss_depends_on(supernet) -> None:
    """The unit reads and is read with large weights, but its activation is constantly zero."""
    name = "backbone.blocks.0"
    with torch.no_grad():
        for network in supernet.networks.values():
            block = network.get_submodule(name)
            for layer in (block.fc1, block.dwconv):
                layer.weight[0], layer.bias[0] = 0, 0
            block.fc2.weight[:, 0] = 5
        for leaf, value in (("fc1.weight", 0), ("fc1.bias", 0)):
            supernet.shared[f"{name}.{leaf}".replace(".", "/")][0] = value
        supernet.shared[f"{name}.fc2.weight".replace(".", "/")][:, 0] = 5
    gather_gradients(supernet, [("cls", batch_of("classification"))])
    put_in_order(supernet, by_taylor)
    assert supernet.networks["cls"].get_parameter(f"{name}.fc2.weight")[0, -1] == 5


def test_a_unit_that_its_norm_lets_nothing_through_of_is_last() -> None:
    """However large the weights are that read it; what goes on unnormed counts as much as what a norm makes large."""
    net = Supernet(SMALL["efficientnet"], {"cls": make_tasks()["cls"]})
    randomize(net)
    block = net.networks["cls"].backbone.blocks[1][0]
    with torch.no_grad():
        block.conv_pwl.weight.fill_(1)
        block.conv_pwl.weight[:, 0] = 5
        block.bn2.bias[0] = -9
        block.conv_pwl.weight[0, 1], block.conv_pwl.weight[1, 2] = 3, 3
        block.bn2.weight.fill_(1)
        block.bn2.bias[1:] = 0
        block.bn3.weight.fill_(1)
        block.bn3.weight[1], block.bn3.running_var[:] = 4, 1
    put_in_order(net, by_magnitude)
    rows = block.conv_pwl.weight[:, :, 0, 0]
    assert (rows[0, -1], rows[1, 0], rows[0, 1]) == (5, 3, 3)


def test_a_family_without_axes_is_refused() -> None:
    with torch.device("meta"):
        net = Supernet(SMALL["lvt_nano"], make_tasks())
    with pytest.raises(UserError, match=r"lvt knows no order of importance of lvt_nano: leave initial\.order out"):
        put_in_order(net, by_magnitude)
