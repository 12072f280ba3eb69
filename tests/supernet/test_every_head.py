"""Every head on every family: one training step of a subnet, an export that equals it, tables."""

from pathlib import Path
from typing import Any

import pytest
import torch

import nasmvt
from nasmvt.config import parse
from nasmvt.cost import Costs, count_parameters
from nasmvt.data.types import DataInfo
from nasmvt.export import save
from nasmvt.space import SearchSpace, Sharing
from nasmvt.supernet import Supernet
from nasmvt.tasks import Task, TaskConfig
from nasmvt.tasks.heads import HEADS
from tests.conftest import CLASSES, make_batch, randomize
from tests.families.small_spaces import SMALL
from tests.supernet.test_every_detector import narrow

LEVELS = {"strides": [4, 8, 8, 16], "channels": 8}
SETTINGS: dict[str, dict[str, Any]] = {
    "class_attention": {"blocks": 1, "head_dim": 4},
    "semantic_fpn": {**LEVELS, "width": 8, "aux_weight": 0.4, "aux_levels": [0, 2], "class_weights": {"two": 2.0}},
    "segformer": {**LEVELS, "neck_width": 8, "loss_over": "all"},
    "panoptic_fpn": {
        "strides": [4, 8],
        "width": 16,
        "anchor_scale": 3,
        "box_hidden": 16,
        "mask_convs": 1,
        "semantic_channels": 8,
        "semantic_groups": 2,
        "rpn_batch": 16,
        "roi_batch": 8,
        "pre_nms": [40, 40],
        "post_nms": [10, 10],
        "detections": 5,
        "least_stuff": 8,
        "score_threshold": 0.2,
    },
}
"""Small settings of each head that the tests of the families don't cover."""


def make_task(head: str) -> Task:
    kind = HEADS.get(head).kind
    values = {"kind": kind, "data": {"image_size": 32}, "head": {"type": head, **SETTINGS[head]}}
    info = DataInfo(kind=kind, classes=CLASSES, has_masks=kind == "panoptic", things=2 * (kind == "panoptic"))
    return Task(name=head, config=parse(TaskConfig, values, head), info=info)


def test_every_shipped_head_is_tested() -> None:
    """Detectors are in `test_every_detector.py`, the usual heads in the tests of every family."""
    shipped_heads = {name for name in HEADS if HEADS.get(name).build.__module__.startswith("nasmvt.")}
    others = {name for name in shipped_heads if HEADS.get(name).kind == "detection"} | {"linear", "upernet"}
    assert shipped_heads - others == set(SETTINGS)


@pytest.mark.parametrize("family", SMALL)
@pytest.mark.parametrize("head", SETTINGS)
def test_a_head_trains_and_is_exported(family: str, head: str, tmp_path: Path) -> None:
    task, space = make_task(head), narrow(family)
    supernet = Supernet(space, {head: task})
    randomize(supernet)
    images, targets = make_batch(task.config.kind)
    losses = supernet.subnet(space.smallest, head).train().loss(images, targets)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    trained = [p.grad for name, p in supernet.named_parameters() if ".head." in name]
    assert trained
    assert all(gradient is not None and gradient.isfinite().all() for gradient in trained)

    model = supernet.materialize(space.smallest)
    save(model, tmp_path / "model", metrics={}, split="none", seed=0)
    loaded = nasmvt.load(tmp_path / "model").task(head).network
    ours, theirs = model.task(head).predict(images), loaded.predict(images)
    assert [prediction.to_json() for prediction in ours] == [prediction.to_json() for prediction in theirs]
    assert all(p.draw(image, 0.0).width >= image.shape[2] for p, image in zip(ours, images, strict=True))
    with torch.inference_mode():
        raw = (model.task(head).eval()(images), loaded.eval()(images))
    torch.testing.assert_close(*raw, rtol=0, atol=0)


@pytest.mark.parametrize("head", SETTINGS)
def test_tables_count_a_head(head: str, space: SearchSpace) -> None:
    tasks = {head: make_task(head)}
    counted = Costs(space, tasks, Sharing.of({})).parameters(space.smallest)
    assert counted == count_parameters(space, tasks, space.smallest, Sharing.of({}))
