"""Multiply-accumulates: as torch counts them on real tensors, by module, without weights."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nasmvt.cost.macs import count_macs
from nasmvt.families import family
from nasmvt.families.layers import to_map, to_tokens
from nasmvt.tasks.build import build_network
from tests.conftest import make_tasks, randomize


@pytest.mark.parametrize("task", ["cls", "det", "seg"])
@pytest.mark.parametrize("end", ["smallest", "largest"])
def test_equal_to_torchs_counter_on_real_tensors(space, tasks, task, end):
    arch = getattr(space, end)
    network = build_network(space, tasks[task], arch).eval()
    randomize(network)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        network.workload(torch.rand(1, 3, 32, 32))
    assert sum(count_macs(space, tasks[task], arch).values()) == counter.get_total_flops() / 2


def test_every_module_counts_its_own_operations(space, tasks):
    arch = space.largest  # width 24, 2 heads of 8, FFN twice as wide, 4 x 4 patches of 8 pixels
    macs = count_macs(space, tasks["cls"], arch)
    assert macs["backbone.stem.0"] == 16 * 16 * 8 * 3 * 7 * 7
    assert macs["backbone.blocks.0.lpu"] == 16 * 24 * 3 * 3
    assert macs["backbone.blocks.4.attn.qkv"] == 16 * 24 * 3 * 16
    assert macs["backbone.blocks.4.attn"] == 2 * 16 * 16 * 16  # q k^T and its product with v, all heads
    assert macs["backbone.blocks.4.fc2"] == 16 * 48 * 24
    assert macs["head.fc"] == 24 * 3
    assert all(macs.values())


def test_a_detector_counts_the_most_regions_that_it_keeps(space, tasks):
    macs = count_macs(space, tasks["det"], space.smallest)
    boxes, masks, width = 10, 5, 16
    assert macs["head.roi_heads.box_predictor.scores"] == boxes * 16 * 4
    assert macs["head.roi_heads.mask_predictor.deconv"] == masks * 14 * 14 * width * width * 4
    assert {name.partition(".")[0] for name in macs} == {"backbone", "neck", "head"}


def test_boxes_alone_have_no_mask_branch(space):
    task = make_tasks()["det"]
    head = task.config.head.model_copy(update={"masks": False})
    task = type(task)(name="det", config=task.config.model_copy(update={"head": head}), info=task.info)
    assert not any("mask" in name for name in count_macs(space, task, space.smallest))


def test_what_only_training_runs_is_not_counted(space, tasks):
    assert not any(name.startswith("auxiliary") for name in count_macs(space, tasks["seg"], space.smallest))


def test_a_module_that_runs_twice_counts_twice(space, tasks, monkeypatch):
    class Twice(torch.nn.Module):
        strides, widths = (16,), (6,)

        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 6, 16, stride=16)
            self.layer = torch.nn.Linear(6, 6)

        def forward(self, images):
            x = to_tokens(self.conv(images))
            return (to_map(self.layer(self.layer(x)) @ torch.eye(6, device=x.device), (2, 2)),)

    chosen = family(space.family)
    monkeypatch.setattr(
        "nasmvt.tasks.build.family",
        lambda name: type(chosen)(name="twice", build=lambda arch, **_: Twice(), choices={}, roles=chosen.roles),
    )
    macs = count_macs(space, tasks["cls"], space.smallest)
    assert macs == {
        "backbone.conv": 4 * 6 * 3 * 16 * 16,
        "backbone.layer": 2 * 4 * 6 * 6,
        "backbone": 4 * 6 * 6,
        "head.fc": 6 * 3,
    }
