"""A lent network is, module by module and bit by bit, the one that the family's constructor builds."""

import numpy as np
import pytest
import torch

from benchmarks.anew import subnet_anew
from benchmarks.networks import convnext_atto, resnet50
from nasmvt.resources import shipped
from nasmvt.seeding import seeded
from nasmvt.space import load_space
from nasmvt.supernet import Supernet
from nasmvt.supernet.structure import comparable, structure
from nasmvt.tasks.build import build_skeleton
from tests.conftest import make_batch, make_tasks, randomize

NANO = [name for name in shipped("search_spaces") if name.endswith("_nano")]


@pytest.fixture(scope="module", params=[*NANO, "convnext_atto", "resnet50"])
def net(request) -> Supernet:
    torch.manual_seed(0)
    of = {"convnext_atto": convnext_atto, "resnet50": resnet50}
    space = of[request.param]() if request.param in of else load_space(request.param)
    net = Supernet(space, make_tasks())
    randomize(net)
    return net


def run(net, network, task):
    """Return losses, gradients and statistics of a training step."""
    net.zero_grad()
    before = {name: tensor.clone() for name, tensor in net.named_buffers()}
    with seeded("step"):
        losses = network.train().loss(*make_batch(net.tasks[task].config.kind))
        sum(losses.values()).backward()
    found = {f"loss {name}": loss.detach() for name, loss in losses.items()}
    found |= {f"gradient {name}": p.grad for name, p in net.named_parameters() if p.grad is not None}
    for name, buffer in net.named_buffers():
        found[f"statistic {name}"] = buffer.clone()
        buffer.copy_(before[name])
    return found


def test_no_family_is_built_anew_for_every_arch(net):
    for task in net.tasks:
        net.subnet(net.space.smallest, task)
        assert net.lenders[task].opaque is None


def test_every_module_is_what_the_constructor_leaves(net):
    rng = np.random.default_rng(0)
    for arch in (net.space.smallest, net.space.largest, *(net.space.sample(rng) for _ in range(12))):
        for task in net.tasks:
            ours, theirs = (
                structure(net.subnet(arch, task)),
                structure(build_skeleton(net.space, net.tasks[task], arch)),
            )
            assert ours.keys() == theirs.keys()
            for name, fields in theirs.items():
                assert ours[name].keys() == fields.keys()
                for field, value in fields.items():
                    assert comparable(ours[name][field]) == comparable(value), (name, field)


def test_losses_gradients_and_statistics_are_equal_bit_for_bit(net):
    rng = np.random.default_rng(1)
    for arch in (net.space.smallest, net.space.largest, *(net.space.sample(rng) for _ in range(3))):
        for task in net.tasks:
            found = run(net, net.subnet(arch, task), task)
            expected = run(net, subnet_anew(net, arch, task), task)
            assert found.keys() == expected.keys()
            assert any(name.startswith("gradient scores") for name in found)
            for name, tensor in expected.items():
                assert torch.equal(found[name], tensor), name
