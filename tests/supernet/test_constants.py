"""Buffers that are no part of the state dict: computed by the constructor, right for every arch, beside the weights."""

import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nasmvt
from nasmvt.config import parse
from nasmvt.export import save
from nasmvt.families import register
from nasmvt.search.evaluator import EvaluationSetting
from nasmvt.search.recipe import Recipe
from nasmvt.space import SearchSpace
from nasmvt.supernet import Supernet
from nasmvt.tasks.build import build_network, build_skeleton, constant_slots
from tests.conftest import make_batch, make_tasks, randomize

SPACE = {"name": "constants", "family": "constants", "choices": {"depth": [1, 2, 3], "width": [4, 6, 8]}}
NAMES = ("ramp", "rate", "index", "table")


class Constants(nn.Module):
    """Constants of a size, and of values, that depend on the arch; one is computed from a tensor without values."""

    strides = (8,)

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.widths = (width,)
        self.stem = nn.Conv2d(3, width, 8, stride=8)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(depth))
        self.register_buffer("ramp", torch.linspace(1, 2, width), persistent=False)
        self.register_buffer("rate", torch.tensor(1 / depth), persistent=False)
        self.register_buffer("index", torch.arange(width).flip(0), persistent=False)
        self.register_buffer("table", torch.ones_like(torch.empty(width)) * depth, persistent=False)
        self.register_buffer("absent", None, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(images)
        for conv in self.convs:
            x = x + self.rate * torch.tanh(conv(x))
        return (x[:, self.index] * (self.ramp + self.table)[:, None, None],)


@register("constants", choices={"depth": int, "width": int}, roles={"backbone.convs.*": "adaptive"})
def build(arch, *, kind, image_size):
    return Constants(arch["depth"], arch["width"])


@pytest.fixture
def net() -> Supernet:
    tasks = {name: task for name, task in make_tasks().items() if name != "det"}
    net = Supernet(parse(SearchSpace, SPACE, "constants"), tasks)
    randomize(net)
    return net


def constants(network: nn.Module) -> dict[str, Tensor]:
    return {slot.leaf: slot.owner.get_buffer(slot.leaf) for slot in constant_slots(network)}


def every_arch(space: SearchSpace):
    return [space.arch({"depth": depth, "width": width}, "test") for depth in (1, 2, 3) for width in (4, 6, 8)]


def assert_right(network: nn.Module, arch) -> None:
    found, expected = constants(network), constants(Constants(arch["depth"], arch["width"]))
    assert tuple(found) == tuple(expected) == NAMES
    assert all(torch.equal(found[name], expected[name]) for name in NAMES)
    assert network.backbone.absent is None


def test_lent_materialized_and_built_networks_have_those_of_their_arch(net):
    for arch in every_arch(net.space):
        model = net.materialize(arch)
        for name, task in net.tasks.items():
            assert_right(net.subnet(arch, name), arch)
            assert_right(model.task(name), arch)
            assert_right(build_skeleton(net.space, task, arch), arch)
    assert net.lenders["cls"].opaque is None


def test_a_step_trains_the_same_as_the_plain_network(net):
    for arch in every_arch(net.space)[::3]:
        net.zero_grad()
        plain = build_network(net.space, net.tasks["cls"], arch)
        lent = net.subnet(arch, "cls")
        plain.load_state_dict(lent.state_dict())
        losses = [sum(each.train().loss(*make_batch("classification")).values()) for each in (lent, plain)]
        assert losses[0] == losses[1]
        for loss in losses:
            loss.backward()
        own = net.networks["cls"].get_parameter("backbone.stem.weight").grad
        assert torch.equal(own[: arch["width"]], plain.backbone.stem.weight.grad)


def test_a_worker_evaluates_with_them(net):
    batches = {task: [] for task in net.tasks}
    recipe = Recipe.of(net, EvaluationSetting(sharing=net.sharing(), images=batches, recalibration=batches))
    rebuilt = pickle.loads(pickle.dumps(recipe))().supernet
    for arch in (net.space.smallest, net.space.largest):
        for task in net.tasks:
            images, _ = make_batch(net.tasks[task].config.kind)
            ours, theirs = (each.materialize(arch).task(task).eval()(images) for each in (net, rebuilt))
            assert torch.equal(ours, theirs)
            assert_right(rebuilt.subnet(arch, task), arch)


def test_an_exported_model_has_them(net, tmp_path):
    for number, arch in enumerate((net.space.smallest, net.space.sample(np.random.default_rng(0)))):
        model = net.materialize(arch).eval()
        save(model, tmp_path / str(number), metrics={}, split="none", seed=0)
        loaded = nasmvt.load(tmp_path / str(number))
        for name, task in net.tasks.items():
            images, _ = make_batch(task.config.kind)
            assert_right(model.task(name), arch)
            assert torch.equal(loaded.task(name)(images), model.task(name)(images))


def test_they_lie_where_the_weights_lie(net):
    """`meta` stands for a GPU: what is not moved there stays on the CPU."""
    arch, sharing = net.space.smallest, net.sharing("none")
    net.subnet(arch, "cls")
    net.to("meta")
    for network in (net.subnet(arch, "cls", sharing), net.materialize(arch, sharing).task("cls")):
        assert {tensor.device.type for tensor in (*network.parameters(), *network.buffers())} == {"meta"}
        assert tuple(constants(network)) == NAMES


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_they_reach_a_gpu(net):
    arch = net.space.smallest
    net.cuda()
    for network in (net.subnet(arch, "cls"), net.materialize(arch).task("cls")):
        images, targets = make_batch("classification")
        assert all(loss.isfinite() for loss in network.train().loss(images.cuda(), targets.cuda()).values())
        assert_right(network.cpu(), arch)
