"""Detections of static shapes equal the ordinary ones."""

import pytest
import torch

from nasmvt.config import parse
from nasmvt.data.types import DataInfo, ImageInfo
from nasmvt.heads.static import best, survivors
from nasmvt.tasks.build import build_network
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.matching import disagreement
from nasmvt.tasks.task import Task
from tests.conftest import TINY_TASKS, make_tasks, randomize

RETINANET = {"width": 16, "strides": (4, 8), "anchor_octaves": 1, "pre_nms": 30, "detections": 5}
HEADS = {
    "mask_rcnn": {},
    "mask_rcnn of mmdetection": {"type": "mask_rcnn", "convention": "mmdetection"},
    "cascade of mmdetection": {"type": "cascade_mask_rcnn", "convention": "mmdetection"},
    "cascade of detectron2": {"type": "cascade_mask_rcnn", "convention": "detectron2"},
    "retinanet of detectron2": {"type": "retinanet", "convention": "detectron2", **RETINANET},
    "retinanet of mmdetection": {"type": "retinanet", "convention": "mmdetection", **RETINANET},
}


@pytest.fixture(params=HEADS.values(), ids=HEADS)
def network(space, request):
    task = make_tasks()["det"]
    shared = {} if request.param.get("type") == "retinanet" else TINY_TASKS["det"]["head"]
    head = {**shared, **request.param}
    config = parse(TaskConfig, {**TINY_TASKS["det"], "head": head}, "det")
    network = build_network(space, Task(name="det", config=config, info=task.info), space.largest).eval()
    randomize(network)
    return network


def images_of(sizes):
    """Images on a canvas of 32 x 32 pixels, which cover parts of it."""
    images = torch.rand(len(sizes), 3, 32, 32)
    return images, [ImageInfo(id=i, size=size, valid=size) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("few", [False, True])
def test_detections_are_the_ordinary_ones(network, few):
    images, infos = images_of([(32, 32), (32, 20), (10, 32), (16, 16)])
    with torch.inference_mode():
        outputs = network.static(**network.static_arguments(images, infos))
        if few:
            network.head.score_threshold = float(outputs["scores"][0, 2])
            outputs = network.static(**network.static_arguments(images, infos))
    assert outputs["boxes"].shape == (4, 5, 4)
    assert 0 < int(outputs["count"][0]) < 5 if few else outputs["count"].tolist() == [5] * 4
    assert network.disagreement(outputs, images, infos) < 1e-6
    for ours, theirs in zip(network.predict(images, infos), network.read(outputs, infos, (32, 32)), strict=True):
        assert sorted(ours.boxes.tolist()) == sorted(theirs.boxes.tolist())  # equal scores come in any order
        assert ours.masks is theirs.masks or ours.masks.sum() == theirs.masks.sum()


def test_an_image_without_detections_has_none(network):
    network.head.score_threshold = 1.0
    images, infos = images_of([(32, 32)])
    with torch.inference_mode():
        outputs = network.static(**network.static_arguments(images, infos))
    assert outputs["count"].tolist() == [0]
    assert not outputs["scores"].any()
    assert not outputs["boxes"].any()
    assert len(network.read(outputs, infos, (32, 32))[0].boxes) == 0


def test_panoptic_maps_are_the_ordinary_ones(space):
    shared = {**TINY_TASKS["det"]["head"], "semantic_channels": 8, "semantic_groups": 4, "least_stuff": 20}
    head = {**shared, "type": "panoptic_fpn", "score_threshold": 0.2}
    config = parse(TaskConfig, {**TINY_TASKS["det"], "kind": "panoptic", "head": head}, "pan")
    info = DataInfo(kind="panoptic", classes=tuple("abcd"), has_masks=True, things=2)
    network = build_network(space, Task(name="pan", config=config, info=info), space.largest).eval()
    randomize(network)
    images, infos = images_of([(32, 32), (32, 20), (10, 32)])
    with torch.inference_mode():
        outputs = network.static(**network.static_arguments(images, infos))
    assert outputs["count"].min() > 0
    assert network.disagreement(outputs, images, infos) < 1e-6
    for ours, theirs in zip(network.predict(images, infos), network.read(outputs, infos, (32, 32)), strict=True):
        assert torch.equal(ours.ids, theirs.ids)
        assert ours.segments == theirs.segments
    outputs["logits"] = outputs["logits"] + 1
    assert network.disagreement(outputs, images, infos) > 1e-3


def test_suppression_stays_inside_a_group_and_leaves_out_what_scores_nothing():
    box, near, far = [0.0, 0, 10, 10], [0.0, 0, 10, 9], [20.0, 20, 30, 30]
    boxes = torch.tensor([[box, near, far], [near, box, box]])
    scores = torch.tensor([[0.5, 0.9, 0.1], [0.0, 0.2, 0.3]])
    assert survivors(boxes, scores, 0.5).tolist() == [[False, True, True], [False, False, True]]
    assert survivors(boxes, scores, 0.95).tolist() == [[True, True, True], [False, False, True]]


def test_the_best_come_first_with_their_values():
    scores, values = best(torch.tensor([[0.1, 0.3, 0.2]]), 2, torch.tensor([[[1.0], [3.0], [2.0]]]))
    assert torch.equal(scores, torch.tensor([[0.3, 0.2]]))
    assert values.tolist() == [[[3.0], [2.0]]]
    assert best(torch.tensor([[0.1, 0.3]]), 5)[0].shape == (1, 2)


def found(*places):
    boxes, labels, scores = zip(*places, strict=True)
    return {"boxes": torch.tensor(boxes), "labels": torch.tensor(labels), "scores": torch.tensor(scores)}


def test_detections_are_compared_without_their_order():
    first, second = ([0.0, 0, 10, 10], 1, 0.5), ([0.0, 0, 10, 8], 1, 0.5)
    assert disagreement(found(first, second), found(second, first), 100) == 0
    moved = found(second, ([0.0, 0, 10, 12], 1, 0.4))
    assert disagreement(found(first, second), moved, 100) == pytest.approx(0.1)
    assert disagreement(found(first), found(([0.0, 0, 10, 10], 2, 0.5)), 100) == float("inf")
    assert disagreement(found(first), found(first, second), 100) == float("inf")
