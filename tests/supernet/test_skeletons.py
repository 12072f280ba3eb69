"""A lent network is, module by module and bit by bit, the one that the family's constructor builds.

    NASMVT_ARCHS=50 pytest tests/supernet/test_skeletons.py

tries more archs.
"""

import os

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

ARCHS = int(os.environ.get("NASMVT_ARCHS", "3"))
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


def drawn(net, seed, count):
    rng = np.random.default_rng(seed)
    return [net.space.smallest, net.space.largest, *(net.space.sample(rng) for _ in range(count))]


def test_every_module_is_what_the_constructor_leaves(net):
    for arch in drawn(net, 0, 12):
        for task in net.tasks:
            theirs = structure(build_skeleton(net.space, net.tasks[task], arch))
            step = net.lenders[task].lend_for_step(arch, net.sharing())
            for network in (net.subnet(arch, task), step):
                ours = structure(network)
                assert ours.keys() == theirs.keys()
                for name, fields in theirs.items():
                    assert ours[name].keys() == fields.keys()
                    for field, value in fields.items():
                        assert comparable(ours[name][field]) == comparable(value), (name, field)
            sum(parameter.sum() for parameter in step.parameters()).backward()  # its modules are free now


def test_losses_gradients_and_statistics_of_steps_are_equal_bit_for_bit(net):
    for arch in drawn(net, 1, ARCHS):
        for task in net.tasks:
            found = run(net, net.lenders[task].lend_for_step(arch, net.sharing()), task)
            expected = run(net, subnet_anew(net, arch, task), task)
            assert found.keys() == expected.keys()
            assert any(name.startswith("gradient scores") for name in found)
            for name, tensor in expected.items():
                assert torch.equal(found[name], tensor), name
