"""A materialized model is the subnet, in tensors of its own."""

import numpy as np
import torch

from nasmvt.cost import ParameterCounter
from nasmvt.space import Sharing
from nasmvt.space.sharing import layer_of
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


def test_largest_arch_computes_what_the_subnet_computes(supernet, space):
    model = supernet.materialize(space.largest).eval()
    with torch.inference_mode():
        for task in ("cls", "seg"):
            images, _ = make_batch(supernet.tasks[task].config.kind)
            assert torch.equal(model.task(task)(images), supernet.subnet(space.largest, task).eval()(images))


def test_shared_tensors_are_tied_and_specific_ones_are_not(supernet, space):
    sharing = Sharing.of({"backbone.blocks.0.fc1": ("cls", "seg"), "backbone.blocks.4.fc1": ("cls", "det", "seg")})
    model = supernet.materialize(space.smallest, sharing)
    first = {t: model.task(t).get_parameter("backbone.blocks.0.fc1.weight") for t in supernet.tasks}
    assert first["cls"] is first["seg"]
    assert first["cls"] is not first["det"]
    assert model.sharing.to_dict() == {"backbone.blocks.0.fc1": ["cls", "seg"]}  # the arch has 4 blocks


def test_counts_equal_the_built_model_for_random_archs_and_sharings(supernet, space):
    rng = np.random.default_rng(0)
    for sharing in (supernet.sharing(), *supernet.sharing_bounds()):
        counter = ParameterCounter(space, supernet.tasks, sharing)
        for _ in range(3):
            arch = space.sample(rng)
            model = supernet.materialize(arch, sharing)
            count = counter.count(arch)
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
