"""A materialized model is the subnet, in tensors of its own."""

from typing import get_args

import numpy as np
import torch

from nasmvt.space import Sharing
from nasmvt.space.sharing import SharingRule, layer_of
from nasmvt.tasks.build import build_network
from tests.conftest import make_batch


def test_values_equal_the_lent_ones_and_are_contiguous_copies(supernet, space):
    arch = space.sample(np.random.default_rng(5))
    model = supernet.materialize(arch)
    for task in supernet.tasks:
        lent = supernet.subnet(arch, task)
        for (name, mine), theirs in zip(model.task(task).named_parameters(), lent.parameters(), strict=True):
            assert torch.equal(mine, theirs), name
            assert mine.is_contiguous()
            assert mine.is_leaf
            assert mine.requires_grad
        for mine, theirs in zip(model.task(task).buffers(), lent.buffers(), strict=True):
            assert torch.equal(mine, theirs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert any(value.abs().sum() > 0 for value in supernet.parameters())


def test_it_computes_what_a_plain_network_of_the_same_weights_computes_bit_for_bit(supernet, space):
    rng = np.random.default_rng(7)
    for arch in (space.smallest, space.largest, *(space.sample(rng) for _ in range(4))):
        model = supernet.materialize(arch).eval()
        with torch.no_grad():
            for task in supernet.tasks:
                plain = build_network(space, supernet.tasks[task], arch).eval()
                plain.load_state_dict(supernet.subnet(arch, task).state_dict())
                images, _ = make_batch(supernet.tasks[task].config.kind)
                ours, theirs = model.task(task)(images), plain(images)
                if task == "det":
                    assert all(torch.equal(a[key], b[key]) for a, b in zip(ours, theirs, strict=True) for key in a)
                else:
                    assert torch.equal(ours, theirs)


def test_its_statistics_are_its_own(supernet, space):
    name = "backbone.stem.1.running_mean"
    before = supernet.networks["seg"].get_buffer(name).clone()
    network = supernet.materialize(space.smallest).task("seg").train()
    network.loss(*make_batch("segmentation"))
    assert not torch.equal(network.get_buffer(name), before)
    assert torch.equal(supernet.networks["seg"].get_buffer(name), before)


def test_shared_tensors_are_tied_and_specific_ones_are_not(supernet, space):
    sharing = Sharing.of({"backbone.blocks.0.fc1": ("cls", "seg"), "backbone.blocks.4.fc1": ("cls", "det", "seg")})
    model = supernet.materialize(space.smallest, sharing)
    first = {t: model.task(t).get_parameter("backbone.blocks.0.fc1.weight") for t in supernet.tasks}
    assert first["cls"] is first["seg"]
    assert first["cls"] is not first["det"]
    assert model.sharing.to_dict() == {"backbone.blocks.0.fc1": ["cls", "seg"]}  # the arch has 4 blocks


def test_counts_equal_the_built_model_for_random_archs_and_sharings(supernet, space, tiny_costs):
    rng = np.random.default_rng(0)
    for sharing in map(supernet.sharing, get_args(SharingRule)):
        costs = tiny_costs.under(sharing)
        for _ in range(3):
            arch = space.sample(rng)
            model = supernet.materialize(arch, sharing)
            count = costs.parameters(arch)
            assert count.total == sum(p.numel() for p in model.parameters())
            shared = [v for k, v in model.tensors().items() if k.startswith("shared.")]
            assert count.shared == sum(value.numel() for value in shared)
            heads = [v for n, v in model.task("det").named_parameters() if not n.startswith("backbone.")]
            assert count.heads["det"] == sum(value.numel() for value in heads)


def test_tensors_hold_each_tensor_once(supernet, space):
    model = supernet.materialize(space.largest)
    tensors = model.tensors()
    pointers = [value.data_ptr() for value in tensors.values()]
    assert len(set(pointers)) == len(pointers)
    parameters = sum(p.numel() for p in model.parameters())
    buffers = sum(b.numel() for b in model.buffers())
    assert sum(value.numel() for value in tensors.values()) == parameters + buffers
    for key in tensors:
        if key.startswith("shared."):
            assert model.sharing.tasks(layer_of(key.removeprefix("shared.")))
