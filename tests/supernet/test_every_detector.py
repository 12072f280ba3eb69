"""Every detection head on every family: one training step, one evaluation, exact counts, and what is exported."""

from typing import Any

import numpy as np
import pytest
import torch

import nasmvt
from nasmvt.config import parse
from nasmvt.cost import Costs, count_macs, count_parameters
from nasmvt.data import DataInfo
from nasmvt.export import save
from nasmvt.space import SearchSpace
from nasmvt.supernet import Supernet
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.task import Task
from tests.conftest import CLASSES, make_batch, randomize
from tests.families.small_spaces import SMALL

_DENSE = {"width": 8, "score_threshold": 0, "anchor_octaves": 1}
_REGIONS = {
    "width": 8,
    "score_threshold": 0,
    "box_hidden": 8,
    "mask_convs": 1,
    "roi_batch": 8,
    "pre_nms": (20, 10),
    "post_nms": (10, 5),
    "detections": 5,
}
_DETR = {
    "type": "deformable_detr",
    "width": 16,
    "groups": 4,
    "heads": 2,
    "points": 2,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "hidden": 8,
    "queries": 5,
}
HEADS: dict[str, dict[str, Any]] = {
    "retinanet": {"type": "retinanet", **_DENSE},
    "cascade": {"type": "cascade_mask_rcnn", **_REGIONS},
    "deformable detr": _DETR,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "retinanet of mmdetection": {"type": "retinanet", "convention": "mmdetection", **_DENSE},
    "mask rcnn of detectron2": {"type": "mask_rcnn", "convention": "detectron2", **_REGIONS},
    "mask rcnn of mmdetection": {"type": "mask_rcnn", "convention": "mmdetection", **_REGIONS},
    "cascade of detectron2": {
        "type": "cascade_mask_rcnn",
        "convention": "detectron2",
        "box_loss": "l1",
        "shared_box": True,
        "mask_stages": 1,
        **_REGIONS,
    },
    "deformable detr in two stages": {"refinement": True, "two_stage": True, **_DETR},
}


def narrow(name: str) -> SearchSpace:
    """A space with two options for the width of the last map alone: what is asked here does not need more."""
    values = SMALL[name].model_dump()
    last = [choice for choice in values["choices"] if choice.startswith("embed_dim")][-1:]
    for choice, content in values["choices"].items():
        content["options"] = content["options"][: 2 if choice in last else 1]
    return parse(SearchSpace, {**values, "archs": {}}, name)


def make_supernet(space: str, head: str) -> Supernet:
    values = {"kind": "detection", "data": {"image_size": 32}, "batch_size": 2, "head": (HEADS | VARIANTS)[head]}
    config = parse(TaskConfig, values, "det")
    info = DataInfo(kind="detection", classes=CLASSES, has_masks=True)
    return Supernet(narrow(space), {"det": Task(name="det", config=config, info=info)})


@pytest.mark.parametrize(
    ("space", "head"), [(space, head) for space in SMALL for head in HEADS] + [("lvt_nano", head) for head in VARIANTS]
)
def test_a_step_an_evaluation_and_the_exported_model(space: str, head: str, tmp_path: Any) -> None:
    supernet = make_supernet(space, head)
    arch = supernet.space.sample(np.random.default_rng(1))
    network = supernet.subnet(arch, "det").train()
    images, targets = make_batch("detection")
    loss = sum(network.loss(images, targets).values())
    assert torch.isfinite(loss)
    loss.backward()
    stored = supernet.networks["det"]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in stored.head.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in stored.backbone.parameters())

    randomize(supernet)
    model = supernet.materialize(arch)
    save(model, tmp_path / "model", metrics={}, split="none", seed=0)
    ours = model.task("det").predict(images)
    theirs = nasmvt.load(tmp_path / "model").task("det").network.predict(images)
    assert sum(len(found.scores) for found in ours) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.boxes, b.boxes)
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.scores, b.scores)
        assert a.masks is b.masks or torch.equal(a.masks, b.masks)


@pytest.mark.parametrize("head", HEADS)
def test_tables_count_what_built_networks_hold(head: str) -> None:
    supernet = make_supernet("lvt_nano", head)
    space, tasks, sharing = supernet.space, supernet.tasks, supernet.sharing()
    costs = Costs(space, tasks, sharing)
    rng = np.random.default_rng(2)
    for _ in range(2):
        arch = space.sample(rng)
        assert costs.parameters(arch) == count_parameters(space, tasks, arch, sharing)
        assert costs.macs("det").of(arch)[0] == sum(count_macs(space, tasks["det"], arch).values())
