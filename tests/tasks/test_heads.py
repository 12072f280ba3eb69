"""Heads and kinds of a user's own: a head of thirty lines for every kind, without a change elsewhere."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nasmvt.config import parse
from nasmvt.cost import count_macs
from nasmvt.data.types import DataInfo, ImageInfo
from nasmvt.errors import UserError
from nasmvt.space import SearchSpace
from nasmvt.supernet import Supernet
from nasmvt.tasks import Task, TaskConfig, register_head
from tests.conftest import CLASSES, TINY_SPACE, make_batch

OWN = '''
import torch.nn.functional as F
from torch import nn
from nasmvt.heads.segmentation import SegmentationHead
from nasmvt.tasks import HeadConfig, HeadParts, register_head

class Own(HeadConfig):
    width: int = 4

class Classes(nn.Module):
    def __init__(self, inputs, width, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, classes))
    def classify(self, maps, sizes):
        return self.layers(maps[-1].amax((2, 3)))
    def losses(self, maps, targets, sizes):
        return {"loss_own": F.cross_entropy(self.classify(maps, sizes), targets)}
    def workload(self, maps):
        self.classify(maps, None)

@register_head("own_cls", kind="classification", config=Own)
def build_cls(widths, strides, config, info):
    return HeadParts(neck=nn.Identity(), head=Classes(widths[-1], config.width, len(info.classes)))

class Pixels(SegmentationHead):
    def __init__(self, inputs, classes):
        super().__init__()
        self.scores = nn.Conv2d(inputs, classes, 1)
    def forward(self, maps):
        return self.scores(maps[0])

@register_head("own_seg", kind="segmentation", config=Own)
def build_seg(widths, strides, config, info):
    return HeadParts(neck=nn.Identity(), head=Pixels(widths[0], len(info.classes)))

class Cells(nn.Module):
    """One object per image: the box of the cell of the highest score, of the image's valid part."""
    def __init__(self, inputs, stride, classes):
        super().__init__()
        self.stride, self.scores = stride, nn.Conv2d(inputs, classes, 1)
    def losses(self, maps, targets, sizes):
        scores = self.scores(maps[-1]).amax((2, 3))
        wanted = scores.new_zeros(scores.shape)
        for row, target in zip(wanted, targets):
            row[target["labels"]] = 1
        return {"loss_cells": F.binary_cross_entropy_with_logits(scores, wanted)}
    def detect(self, maps, sizes):
        found = []
        for scores, (height, width) in zip(self.scores(maps[-1]).sigmoid(), sizes):
            best = scores.flatten().argmax()
            label, cell = best // scores[0].numel(), best % scores[0].numel()
            y, x = (cell // scores.shape[2]) * self.stride, (cell % scores.shape[2]) * self.stride
            box = scores.new_tensor([x, y, min(x + self.stride, width), min(y + self.stride, height)])
            found.append({"boxes": box[None], "labels": label[None], "scores": scores.flatten()[best][None]})
        return found
    def workload(self, maps):
        self.scores(maps[-1])

@register_head("own_det", kind="detection", config=Own)
def build_det(widths, strides, config, info):
    return HeadParts(neck=nn.Identity(), head=Cells(widths[-1], strides[-1], len(info.classes)))
'''
HEADS = {"classification": "own_cls", "detection": "own_det", "segmentation": "own_seg"}


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_heads.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return "own_heads"


def own_task(module: str, kind: str, **head: Any) -> Task:
    values = {"kind": kind, "data": {"image_size": 32}, "head": {"type": f"{module}:{HEADS[kind]}", **head}}
    info = DataInfo(kind=kind, classes=CLASSES)
    return Task(name=kind, config=parse(TaskConfig, values, "x.yaml"), info=info)


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_of_the_users_own_trains_counts_and_evaluates(own_module: str, kind: str) -> None:
    task, space = own_task(own_module, kind), parse(SearchSpace, TINY_SPACE, "tiny")
    supernet = Supernet(space, {"t": task})
    images, targets = make_batch(kind)
    sum(supernet.subnet(space.smallest, "t").train().loss(images, targets).values()).backward()
    heads = [p.grad for name, p in supernet.named_parameters() if ".head." in name and ".bias" not in name]
    assert heads
    assert all(grad is not None and grad.abs().sum() > 0 for grad in heads)
    assert sum(count for name, count in count_macs(space, task, space.smallest).items() if "head" in name) > 0

    model = supernet.materialize(space.smallest)
    predictions = model.task("t").predict(images)
    assert len(predictions) == len(images)
    assert predictions[0].to_json()
    drawn = predictions[0].draw(images[0], 0.0)
    assert drawn.width % 32 == 0


def test_a_head_of_the_users_own_reads_its_settings_and_comes_back_from_its_dump(own_module: str) -> None:
    task = own_task(own_module, "classification", width=7)
    assert task.config.head.own() == {"width": 7}
    assert parse(TaskConfig, task.config.model_dump(mode="json"), "x.yaml") == task.config
    with pytest.raises(UserError, match=r"unknown key 'head.wdith' in x.yaml; did you mean 'width'"):
        own_task(own_module, "classification", wdith=7)


def test_an_unknown_module_and_a_taken_name_are_refused(own_module: str) -> None:
    values = {"kind": "detection", "head": {"type": "no_such_module:head"}}
    with pytest.raises(UserError, match=r"the module 'no_such_module' of a head can't be imported"):
        parse(TaskConfig, values, "x.yaml")
    own = own_task(own_module, "detection").config.head
    with pytest.raises(UserError, match=r"'linear' is registered by nasmvt.tasks.linear"):
        register_head("linear", kind="classification", config=type(own))(lambda *_: None)  # type: ignore[arg-type,return-value]


def test_a_detector_is_told_the_valid_part_of_every_image(own_module: str) -> None:
    task, space = own_task(own_module, "detection"), parse(SearchSpace, TINY_SPACE, "tiny")
    network = Supernet(space, {"t": task}).materialize(space.smallest).task("t")
    seen: list[Any] = []
    network.head.losses = lambda maps, targets, sizes: seen.extend(sizes) or {}
    images, targets = make_batch("detection")
    infos = [ImageInfo(id=0, size=(64, 40), valid=(32, 20)), ImageInfo(id=1, size=(32, 32), valid=(32, 32))]
    network.loss(images, targets, infos)
    assert seen == [(32, 20), (32, 32)]
    assert isinstance(network.predict(torch.zeros_like(images), infos), list)


def test_the_example_of_the_documentation_trains(own_module: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "new-head.md").read_text()
    Path("my_heads.py").write_text(text.split("```python\n")[1].split("```")[0])
    values = {"kind": "segmentation", "data": {"image_size": 32}, "head": {"type": "my_heads:pixels", "width": 64}}
    task = Task(
        name="seg",
        config=parse(TaskConfig, values, "x.yaml"),
        info=DataInfo(kind="segmentation", classes=CLASSES),
    )
    space = parse(SearchSpace, TINY_SPACE, "tiny")
    losses = Supernet(space, {"seg": task}).subnet(space.largest, "seg").train().loss(*make_batch("segmentation"))
    assert set(losses) == {"loss_seg"}
