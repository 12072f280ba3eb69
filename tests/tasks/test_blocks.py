"""The blocks of every family and the heavy parts of every head: recomputed with the same result, counted by depth."""

import re
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from nasmvt.config import parse
from nasmvt.data import DataInfo
from nasmvt.errors import UserError
from nasmvt.families import family
from nasmvt.model import MultiTaskModel
from nasmvt.seeding import seeded
from nasmvt.space import Sharing
from nasmvt.supernet import Supernet
from nasmvt.tasks.blocks import blocks_of, depths, recomputed_blocks, recomputing
from nasmvt.tasks.build import build_network
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.heads import HEADS
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.task import Task
from nasmvt.training import TrainingConfig
from nasmvt.training.selection import groups_of, selected
from tests.conftest import CLASSES, make_batch, make_tasks, randomize
from tests.families.small_spaces import SMALL
from tests.supernet.test_every_detector import HEADS as DETECTORS
from tests.supernet.test_every_head import SETTINGS

OFF, ON = {"gradient_checkpointing": False}, {"gradient_checkpointing": True}


def with_drop_path(name: str):
    space = SMALL[name]
    fixed = {**space.fixed, "drop_path": 0.5}
    return space.model_copy(update={"fixed": fixed})


def run(network: TaskNetwork, kind: str) -> tuple[dict[str, Tensor], int]:
    """Return the losses of a batch, and the bytes that are kept for the backward pass."""
    seen: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with seeded("pass"), saved_tensors_hooks(note, lambda tensor: tensor):
        losses = network.loss(*make_batch(kind, 3))
    return losses, sum(seen.values())


def back(losses: dict[str, Tensor], network: torch.nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the gradients and the statistics after a step."""
    with seeded("backward"):  # what is drawn in between must not matter
        sum(losses.values()).backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    return gradients, {name: buffer.clone() for name, buffer in network.named_buffers()}


def assert_same(one, other) -> None:
    for first, second in zip(one, other, strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def assert_recomputed(network: TaskNetwork, kind: str, blocks: re.Pattern[str]) -> None:
    """Recomputing what matches keeps less, and gives the same gradients and statistics."""
    start = {name: value.clone() for name, value in network.state_dict().items()}
    losses, size = run(network, kind)
    plain = back(losses, network)
    network.load_state_dict(start)
    network.zero_grad()
    with recomputing(network, blocks):
        losses, less = run(network, kind)
    assert_same(plain, back(losses, network))
    assert less < size


@pytest.mark.parametrize("name", SMALL)
def test_blocks_are_recomputed_with_the_same_gradients(name) -> None:
    space = with_drop_path(name)
    network = build_network(space, make_tasks()["cls"], space.smallest).train()
    randomize(network)
    assert_recomputed(network, "classification", blocks_of(space, "it"))


def test_blocks_of_lent_networks_are_recomputed(space, tasks) -> None:
    supernet = Supernet(space, {"seg": tasks["seg"]})
    randomize(supernet)
    start, found = {name: value.clone() for name, value in supernet.state_dict().items()}, []
    for wanted in (False, True, True):
        supernet.load_state_dict(start)
        supernet.zero_grad()
        network = supernet.network_for_step(space.largest, "seg")
        with recomputing(network, blocks_of(space, "it")) if wanted else nullcontext():
            losses, _ = run(network, "segmentation")
        found.append(back(losses, supernet))
        assert not any("forward" in vars(module) for module in network.modules())
    assert_same(found[0], found[1])
    assert_same(found[0], found[2])


OTHERS = {**SETTINGS, **DETECTORS, "mask_rcnn": {"box_hidden": 16, "width": 16, "roi_batch": 8}, "upernet": {}}


def test_every_shipped_head_is_here() -> None:
    here = {settings.get("type", name) for name, settings in OTHERS.items()}
    assert {n for n in HEADS if HEADS.get(n).build.__module__.startswith("nasmvt.")} == here | {"linear"}


@pytest.mark.parametrize("name", [name for name in OTHERS if name != "class_attention"])  # which has none
def test_heavy_parts_of_heads_are_recomputed(name, space) -> None:
    settings = {"type": name, **OTHERS[name]}
    kind = HEADS.get(settings["type"]).kind
    config = parse(TaskConfig, {"kind": kind, "data": {"image_size": 32}, "head": settings}, name)
    info = DataInfo(kind=kind, classes=CLASSES, has_masks=True, things=2 * (kind == "panoptic"))
    network = build_network(space, Task(name="t", config=config, info=info), space.smallest).train()
    assert_recomputed(network, kind, re.compile("none"))


def test_depth_is_counted_by_block() -> None:
    names = ["pos", "stem.w", "stages.0.blocks.0.w", "stages.1.down.w", "stages.1.blocks.0.w", "norm.w", "head.w"]
    parallel = ["stem.w", *(f"s.{s}.p.{p}.b.{b}.w" for s in range(2) for p in range(2) for b in range(2)), "head.w"]
    found = depths([names], re.compile(r"stages\.(\d+)\.blocks\.(\d+)"))
    assert [found[name] for name in names] == [0, 0, 1, 2, 2, 3, 3]
    found = depths([parallel], re.compile(r"s\.(\d+)\.p\.\d+\.b\.(\d+)"))
    assert [found[name] for name in parallel] == [0, *[1, 2] * 2, *[3, 4] * 2, 5]


@pytest.mark.parametrize("name", SMALL)
def test_learning_rates_decay_from_block_to_block(name) -> None:
    space = SMALL[name]
    model = MultiTaskModel.fresh(space, {"cls": make_tasks()["cls"]}, space.smallest, Sharing.of({}))
    config = TrainingConfig(layer_decay=0.5, lr_scale={"head.**": 3.0})
    scales = {item.plain: item.scale for item in selected(model, config)}
    assert scales[next(iter(scales))] == min(scales.values())
    found = sorted({scale for key, scale in scales.items() if blocks_of(space, "it").match(key)})
    assert found == [0.5**depth for depth in range(len(found), 0, -1)]
    assert min(scales.values()) == found[0] / 2
    assert scales["head.fc.weight"] == 1
    rates = {group.get("lr_scale", 1) for group in groups_of(selected(model, config), config.lr_scale)}
    assert rates | {1} == {*scales.values(), 3}


def test_a_family_without_blocks_is_refused(space, monkeypatch) -> None:
    monkeypatch.setattr("nasmvt.tasks.blocks.family", lambda name: replace(family(name), blocks=None))
    with pytest.raises(UserError, match=r"training.layer_decay works by block, but the family vit_mvt names none"):
        blocks_of(space, "training.layer_decay")


def test_a_space_of_an_older_version_that_asks_for_recomputing_names_the_setting() -> None:
    spaces = [
        SMALL["lvt_nano"].model_copy(update={"fixed": {**SMALL["lvt_nano"].fixed, **old}}) for old in ({}, OFF, ON)
    ]
    archs = [family("lvt").backbone(space, space.smallest, kind="detection", image_size=(64, 64)) for space in spaces]
    assert len({str(backbone) for backbone in archs}) == 1
    assert [recomputed_blocks(space, wanted=False) for space in spaces[:2]] == [None, None]
    assert recomputed_blocks(spaces[2], wanted=True) == blocks_of(spaces[0], "it")
    with pytest.raises(UserError, match=r"fixes 'gradient_checkpointing', .* set training.activation_checkpointing to"):
        recomputed_blocks(spaces[2], wanted=False)
