"""Any plain module factory can be a family: constants, tied weights, parts that only some archs have."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.families.registry import register
from nasmvt.space import SearchSpace, Sharing, load_space
from nasmvt.supernet import Supernet
from tests.conftest import make_batch, make_tasks, randomize

SPACE = {"name": "plain", "family": "plain", "choices": {"depth": [1, 3], "width": [4, 8]}}


class Plain(nn.Module):
    """Convolutions that all use one kernel, and a constant that is no part of the state dict."""

    strides = (8,)

    def __init__(
        self, depth: int, width: int, backwards: bool, opaque: str | None = None, recompute: bool = False
    ) -> None:
        super().__init__()
        self.recompute = recompute
        self.widths = (width,)
        self.stem = nn.Conv2d(3, width, 8, stride=8)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 1, bias=False) for _ in range(depth))
        for conv in self.convs:
            conv.weight = self.convs[0].weight
        self.register_buffer("ramp", torch.arange(width).float() + 1, persistent=False)
        first = self.convs[0]
        if opaque == "hook":
            first.register_forward_hook(lambda module, inputs, output: output * width)
        elif opaque == "closure":
            self.last = lambda x: first(x)
        elif opaque == "outside":
            self.last = [first].pop().forward
        if backwards and depth == 1:
            self.surplus = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(images)
        for conv in self.convs:
            x = torch.tanh(checkpoint(conv, x, use_reentrant=False) if self.recompute else conv(x))
        x = self.last(x) if hasattr(self, "last") else x
        return (x * self.ramp[:, None, None],)


@register("plain", choices={"depth": int, "width": int}, roles={"backbone.convs.*": "adaptive"})
def build(arch, *, kind, image_size, backwards: bool = False, opaque: str | None = None, recompute: bool = False):
    return Plain(arch["depth"], arch["width"], backwards, opaque, recompute)


def test_constants_are_real_and_tied_weights_stay_tied():
    space = parse(SearchSpace, SPACE, "plain")
    tasks = {name: task for name, task in make_tasks().items() if name == "cls"}
    net = Supernet(space, tasks)
    randomize(net)
    for arch in (space.smallest, space.largest):
        network = net.subnet(arch, "cls")
        weights = {conv.weight.data_ptr() for conv in network.backbone.convs}
        assert len(weights) == 1
        assert torch.equal(network.backbone.ramp, torch.arange(arch["width"]).float() + 1)
        plain = Plain(arch["depth"], arch["width"], False)
        plain.load_state_dict(network.backbone.state_dict())
        images = torch.rand(2, 3, 32, 32)
        assert torch.equal(plain(images)[0], network.backbone(images)[0])
        model = net.materialize(arch)
        assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in plain.parameters()) + sum(
            p.numel() for p in model.task("cls").head.parameters()
        )


def test_a_lent_network_follows_the_store_to_another_type():
    space = parse(SearchSpace, SPACE, "plain")
    net = Supernet(space, {"cls": make_tasks()["cls"]})
    net.subnet(space.smallest, "cls")
    net.double()
    assert net.subnet(space.smallest, "cls").backbone.stem.weight.dtype == torch.float64


def test_tied_weights_of_an_adaptive_layer_are_one_tensor_in_the_store():
    space = parse(SearchSpace, SPACE, "plain")
    net = Supernet(space, {name: make_tasks()[name] for name in ("cls", "seg")})
    assert len({id(conv.weight) for conv in net.networks["cls"].backbone.convs}) == 1
    assert set(net.shared) == {"backbone/convs/0/weight"}
    for sharing in (net.sharing("all"), net.sharing("none")):
        network = net.subnet(space.largest, "cls", sharing)
        assert len({id(conv.weight) for conv in network.backbone.convs}) == 1


def test_steps_that_recompute_do_not_disturb_one_whose_backward_is_to_come():
    space = parse(SearchSpace, {**SPACE, "fixed": {"recompute": True}}, "plain")
    net = Supernet(space, {"cls": make_tasks()["cls"]})
    batch, archs = make_batch("classification"), (space.largest, space.smallest)
    lend = partial(net.lenders["cls"].lend_for_step, sharing=net.sharing())
    for arch in archs:
        sum(lend(arch).loss(*batch).values()).backward()
    expected = {name: parameter.grad.clone() for name, parameter in net.named_parameters()}
    net.zero_grad()
    losses = [sum(lend(arch).loss(*batch).values()) for arch in archs]
    for loss in losses:
        loss.backward()
    assert all(torch.equal(parameter.grad, expected[name]) for name, parameter in net.named_parameters())


def test_a_module_that_decides_itself_what_training_means_is_asked():
    class Frozen(nn.Conv2d):
        def train(self, mode: bool = True) -> nn.Module:
            return super().train(False)

    space = parse(SearchSpace, {**SPACE, "name": "frozen", "family": "frozen"}, "frozen")

    @register("frozen", choices={"depth": int, "width": int}, roles={})
    def build_frozen(arch, *, kind, image_size):
        network = Plain(arch["depth"], arch["width"], False)
        network.stem = Frozen(3, arch["width"], 8, stride=8)
        return network

    lender = Supernet(space, {"cls": make_tasks()["cls"]}).lenders["cls"]
    for _ in range(2):
        network = lender.lend_for_step(space.smallest, Sharing(()))
        assert network.training
        assert not network.backbone.stem.training
        sum(network.loss(*make_batch("classification")).values()).backward()


@pytest.mark.parametrize("how", ["hook", "closure", "outside"])
def test_networks_that_hold_what_cant_be_compared_are_built_anew(how):
    space = parse(SearchSpace, {**SPACE, "fixed": {"opaque": how}}, "plain")
    net = Supernet(space, {"cls": make_tasks()["cls"]})
    randomize(net)
    images = torch.rand(2, 3, 32, 32)
    for arch in (space.smallest, space.largest):
        network = net.subnet(arch, "cls").eval()
        plain = net.materialize(arch).task("cls").eval()
        network(images).sum().backward()
        assert net.lenders["cls"].opaque
        with torch.no_grad():
            assert torch.equal(network(images), plain(images))
        assert net.networks["cls"].backbone.stem.weight.grad[: arch["width"]].abs().sum() > 0


def test_a_part_that_the_largest_network_lacks_is_refused_by_name():
    space = parse(SearchSpace, {**SPACE, "fixed": {"backwards": True}}, "plain")
    with pytest.raises(UserError, match=r"backbone\.surplus of task cls is \(1,\) in a subnet and absent"):
        Supernet(space, {"cls": make_tasks()["cls"]})


def test_an_option_in_the_middle_that_can_not_be_built_is_refused_before_anything_is_trained():
    values = {"name": "odd", "family": "lvt", "choices": {**load_space("lvt_nano").model_dump()["choices"]}}
    values["choices"]["embed_dim2"] = [24, 30, 40]  # heads are 8 channels wide
    space = parse(SearchSpace, {**values, "fixed": load_space("lvt_nano").fixed}, "odd")
    with pytest.raises(UserError, match="embed_dim2 must be a multiple of head_dim 8, not 30"):
        Supernet(space, {"cls": make_tasks()["cls"]})
