import contextlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as reference_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors.torch import load_file
from torch import Tensor

from nasmvt.data.masks import ObjectMasks
from nasmvt.data.types import IGNORE
from nasmvt.tasks import (
    ClassificationMetric,
    ClassificationPrediction,
    CocoMetric,
    DetectionPrediction,
    SegmentationMetric,
    SegmentationPrediction,
)

CLASSES = ("a", "b", "c")


def classified(probabilities: list[float]) -> ClassificationPrediction:
    return ClassificationPrediction(
        probabilities=torch.tensor(probabilities), classes=tuple(str(i) for i in range(len(probabilities)))
    )


def test_top1_and_top5_by_hand() -> None:
    metric = ClassificationMetric(7)
    falling = [0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05]
    metric.update([classified(falling)] * 3, torch.tensor([0, 4, 5]))
    metric.update([classified(falling)], torch.tensor([0]))
    assert metric.compute() == pytest.approx({"top1": 50.0, "top5": 75.0})


def test_few_classes_have_no_top5() -> None:
    metric = ClassificationMetric(3)
    assert metric.compute() == {"top1": 0.0}
    metric.update([classified([0.1, 0.7, 0.2])], torch.tensor([1]))
    assert metric.compute() == {"top1": 100.0}


def segmented(labels: list[list[int]]) -> SegmentationPrediction:
    return SegmentationPrediction(labels=torch.tensor(labels, dtype=torch.uint8), classes=("a", "b", "c", "d"))


def test_miou_by_hand() -> None:
    metric = SegmentationMetric(4)
    metric.update([segmented([[0, 0, 1, 3]])], [torch.tensor([[0, 1, 1, IGNORE]])])
    metric.update([segmented([[0], [1]])], [torch.tensor([[0], [0]])])
    # class 0: 2 of 4 pixels of the union, class 1: 1 of 3; 2 is nowhere, 3 on an ignored pixel only
    assert metric.compute() == pytest.approx(
        {"miou": 100 * (2 / 4 + 1 / 3) / 2, "mean_accuracy": 100 * (2 / 3 + 1 / 2) / 2, "pixel_accuracy": 60.0}
    )


def test_a_class_that_is_only_predicted_counts_as_0() -> None:
    metric = SegmentationMetric(4)
    metric.update([segmented([[0, 2]])], [torch.tensor([[0, 0]])])
    assert metric.compute() == pytest.approx({"miou": 25.0, "mean_accuracy": 50.0, "pixel_accuracy": 50.0})


def test_no_pixel_counts_0() -> None:
    metric = SegmentationMetric(4)
    metric.update([segmented([[0, 2]])], [torch.full((1, 2), IGNORE)])
    assert metric.compute() == {"miou": 0.0, "mean_accuracy": 0.0, "pixel_accuracy": 0.0}


def test_segmentation_is_measured_as_by_the_released_code() -> None:
    path = Path(os.environ.get("NASMVT_SHARED", "../shared")) / "parity" / "seg_augment.json"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    facts, tensors = json.loads(path.read_text())["metric"], load_file(path.with_suffix(".safetensors"))
    metric = SegmentationMetric(facts["classes"])
    for number in range(3):
        prediction = SegmentationPrediction(labels=tensors[f"metric.pred.{number}"], classes=())
        metric.update([prediction], [tensors[f"metric.target.{number}"]])
    expected = {"miou": facts["mIoU"], "mean_accuracy": facts["mAcc"], "pixel_accuracy": facts["aAcc"]}
    assert metric.compute() == pytest.approx({name: 100 * value for name, value in expected.items()}, abs=1e-10)


Picture = tuple[DetectionPrediction, dict[str, Tensor]]


def scene(random: np.random.Generator, side: int = 120) -> Picture:
    """Draw objects, crowds among them, and detections that are near some of them."""
    n = int(random.integers(0, 7))
    truth = torch.tensor(random.uniform(0, side - 60, (n, 2)), dtype=torch.float32)
    boxes = torch.cat((truth, truth + torch.tensor(random.uniform(6, 60, (n, 2)), dtype=torch.float32)), dim=1)
    labels = torch.tensor(random.integers(0, 3, n), dtype=torch.int64)
    crowd = torch.tensor(random.random(n) < 0.3)
    m = 2 * n + 3
    found = boxes.repeat(2, 1) + torch.tensor(random.normal(0, 3, (2 * n, 4)), dtype=torch.float32)
    found = torch.cat((found, torch.tensor([[1.0, 2.0, 30.0, 40.0]]).repeat(3, 1)))
    found[:, 2:] = torch.maximum(found[:, 2:], found[:, :2] + 1)
    found = found.clamp(0, side)
    guesses = torch.cat((labels.repeat(2), torch.tensor([0, 1, 2])))
    scores = torch.tensor(random.permutation(m) / m, dtype=torch.float32)
    prediction = DetectionPrediction(
        size=(side, side),
        boxes=found,
        labels=guesses,
        scores=scores,
        masks=ellipses(found, side),
        classes=CLASSES,
    )
    return prediction, {
        "boxes": boxes,
        "labels": labels,
        "crowd": crowd,
        "masks": ObjectMasks.of(ellipses(boxes, side)),
    }


def ellipses(boxes: Tensor, side: int) -> Tensor:
    x, y = torch.arange(side) + 0.5, (torch.arange(side) + 0.5)[:, None]
    masks = [
        ((x - (x0 + x1) / 2) / (x1 - x0)) ** 2 + ((y - (y0 + y1) / 2) / (y1 - y0)) ** 2 <= 0.25
        for x0, y0, x1, y1 in boxes
    ]
    return torch.stack(masks) if masks else torch.zeros(0, side, side, dtype=torch.bool)


def reference(pictures: list[Picture]) -> dict[str, float]:
    """What pycocotools says of the same images, written to COCO's format without our code."""

    def item(image: int, box: Tensor, label: Tensor, mask: Tensor | None) -> dict[str, Any]:
        x0, y0, x1, y1 = box.double().tolist()
        record = {"image_id": image, "category_id": 10 + int(label), "bbox": [x0, y0, x1 - x0, y1 - y0]}
        if mask is not None:
            record["segmentation"] = reference_masks.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
        return record

    images, objects, found = [], [], []
    for image, (prediction, target) in enumerate(pictures):
        images.append({"id": image, "height": prediction.size[0], "width": prediction.size[1]})
        for i in range(len(target["boxes"])):
            record = item(image, target["boxes"][i], target["labels"][i], target["masks"].dense()[i])
            area = int(target["masks"].dense()[i].sum())
            objects.append({**record, "id": len(objects) + 1, "iscrowd": int(target["crowd"][i]), "area": area})
        for i in range(len(prediction.boxes)):
            mask = None if prediction.masks is None else prediction.masks[i]
            record = item(image, prediction.boxes[i], prediction.labels[i], mask)
            found.append({**record, "score": float(prediction.scores[i])})
    figures: dict[str, float] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": images,
            "annotations": objects,
            "categories": [{"id": 10 + i, "name": name} for i, name in enumerate(CLASSES)],
        }
        truth.createIndex()
        drawn = pictures[0][0].masks is not None
        for kind, prefix in (("bbox", "box"), ("segm", "mask"))[: 2 if drawn else 1]:
            results = [{k: v for k, v in r.items() if kind == "bbox" or k != "bbox"} for r in found]
            evaluation = COCOeval(truth, truth.loadRes(results), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            figures[f"{prefix}_map"], figures[f"{prefix}_ap50"] = (100 * s for s in evaluation.stats[:2])
            if kind == "bbox":
                figures["box_ap75"] = 100 * evaluation.stats[2]
    return figures


@pytest.mark.parametrize("seed", [0, 1])
def test_map_is_that_of_pycocotools(seed: int) -> None:
    random = np.random.default_rng(seed)
    pictures = [scene(random) for _ in range(12)]
    assert any(target["crowd"].any() for _, target in pictures)
    metric = CocoMetric(3)
    for start in range(0, 12, 5):
        part = pictures[start : start + 5]
        metric.update([p for p, _ in part], [t for _, t in part])
    expected = reference(pictures)
    assert 5 < expected["box_map"] < 95
    assert 5 < expected["mask_map"] < 95
    assert metric.compute() == pytest.approx(expected, abs=1e-9)
    assert metric.compute() == pytest.approx(expected, abs=1e-9)


def perfect(masks: bool = False) -> Picture:
    boxes, labels = torch.tensor([[1.0, 2.0, 30.0, 40.0]]), torch.tensor([1])
    target = {"boxes": boxes, "labels": labels}
    prediction = DetectionPrediction(
        size=(64, 64), boxes=boxes, labels=labels, scores=torch.tensor([0.7]), masks=None, classes=CLASSES
    )
    return prediction, target


def test_a_perfect_detector_has_100() -> None:
    metric = CocoMetric(3)
    prediction, target = perfect()
    metric.update([prediction], [target])
    assert metric.compute() == pytest.approx({"box_map": 100.0, "box_ap50": 100.0, "box_ap75": 100.0})


def without_detections(picture: Picture) -> Picture:
    prediction, target = picture
    empty = DetectionPrediction(
        size=prediction.size,
        boxes=prediction.boxes[:0],
        labels=prediction.labels[:0],
        scores=prediction.scores[:0],
        masks=None,
        classes=CLASSES,
    )
    return empty, target


def without_objects(picture: Picture) -> Picture:
    prediction, target = picture
    return prediction, {key: value[:0] for key, value in target.items()}


def only_crowds(picture: Picture) -> Picture:
    prediction, target = picture
    return prediction, {**target, "crowd": torch.tensor([True])}


@pytest.mark.parametrize("change", [without_detections, without_objects, only_crowds])
def test_nothing_to_find_or_nothing_found_is_0(change: Callable[[Picture], Picture]) -> None:
    metric = CocoMetric(3)
    prediction, target = change(perfect())
    metric.update([prediction], [target])
    assert metric.compute() == {"box_map": 0.0, "box_ap50": 0.0, "box_ap75": 0.0}
    assert set(CocoMetric(3).compute().values()) == {0.0}


def in_parts(metric: Callable[[], Any], images: list[tuple[Any, Any]]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the figures of three metrics put together, and those of one; in mAP the order of equal scores counts."""
    whole, together = metric(), metric()
    for start in range(3):
        part = metric()
        for prediction, target in images[start::3]:
            whole.update([prediction], target)
            part.update([prediction], target)
        together.add(part)
    return together.compute(), whole.compute()


def test_parts_of_a_metric_add_up_to_the_whole() -> None:
    random = np.random.default_rng(5)
    draws = [random.dirichlet([1.0] * 7).tolist() for _ in range(20)]
    together, whole = in_parts(
        lambda: ClassificationMetric(7), [(classified(p), torch.tensor([i % 7])) for i, p in enumerate(draws)]
    )
    assert together == pytest.approx(whole)
    maps = [random.integers(0, 4, (2, 3, 5)).tolist() for _ in range(10)]
    together, whole = in_parts(
        lambda: SegmentationMetric(4), [(segmented(guess), [torch.tensor(truth)]) for guess, truth in maps]
    )
    assert together == whole
    scenes = [scene(random) for _ in range(12)]
    together, whole = in_parts(lambda: CocoMetric(len(CLASSES)), [(guess, [truth]) for guess, truth in scenes])
    assert together == pytest.approx(whole)
    assert 0 < whole["box_map"] < 100
