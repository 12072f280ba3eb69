"""Bytes that are alive: what operations make, until nothing holds it."""

import torch
from torch import nn

from nasmvt.cost.memory import LiveBytes, activation_bytes
from nasmvt.data.types import Batch
from nasmvt.tasks.blocks import blocks_of
from nasmvt.tasks.build import build_network
from tests.conftest import make_batch


def test_what_is_made_counts_until_it_is_dropped() -> None:
    x = torch.rand(1000)
    with LiveBytes([x]) as counted:
        x.view(10, 100).t()  # a view of what is there
        assert counted.peak == 0
        y = x + 1
        z = y.view(-1)[3:]
        y.mul_(2)
        assert counted.live == 4000
        del y
        assert counted.live == 4000
        del z
        assert counted.live == 0
    assert counted.peak == 4000


def test_what_autograd_keeps_counts() -> None:
    layers = nn.Sequential(*(nn.Sequential(nn.Linear(64, 64, bias=False), nn.Sigmoid()) for _ in range(5)))
    x = torch.rand(100, 64)
    with LiveBytes([x, *layers.parameters()]) as counted:
        loss = layers(x).sum()
        kept = counted.live
        loss.backward()
        del loss
    assert kept == 5 * 100 * 64 * 4 + 4  # the outputs of the activations, and the loss
    assert counted.live == sum(p.grad.nbytes for p in layers.parameters())


def test_less_is_held_in_16_bits_or_with_recomputed_blocks_or_by_fewer_images(space, tasks) -> None:
    def measure(size=4, **settings) -> int:
        images, targets = make_batch("segmentation", size)
        network = build_network(space, tasks["seg"], space.largest)
        return activation_bytes(network, Batch(images=images, targets=targets, infos=[]), **settings)

    images, targets = make_batch("segmentation", 4)
    assert len(targets) == len(images)
    plain = measure()
    assert measure(blocks=blocks_of(space, "it")) < 0.9 * plain
    assert measure(precision="bf16") < 0.9 * plain
    few, more = measure(2), measure(6)
    assert abs((few + more) / 2 - plain) < 0.02 * plain  # linear in the images
