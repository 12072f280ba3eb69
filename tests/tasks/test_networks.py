"""Losses, predictions and their coordinates."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as reference_masks
from timm.data.mixup import mixup_target
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn

from nasmvt.data.types import IGNORE, ImageInfo
from nasmvt.heads.segmentation import SegmentationHead
from nasmvt.tasks import DetectionNetwork, SegmentationNetwork, Task, TaskNetwork, pixels
from nasmvt.tasks.build import build_network
from nasmvt.tasks.masks import paste_masks
from tests.conftest import make_batch, make_tasks
from tests.families.small_spaces import SMALL

MakeTask = Callable[..., Task]
MakeNetwork = Callable[[Task], TaskNetwork]
KINDS: tuple[str, ...] = ("classification", "detection", "segmentation")


def targets_of(kind: str) -> Any:
    if kind == "classification":
        return torch.tensor([0, 2])
    if kind == "segmentation":
        return torch.randint(0, 3, (2, 64, 64))
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 10:40, 8:30] = True
    found = {"boxes": torch.tensor([[8.0, 10.0, 30.0, 40.0]]), "labels": torch.tensor([1]), "masks": mask}
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "masks": mask[:0]}
    return [found, empty]


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_and_floats_are_the_same_picture(kind: str, make_task: MakeTask, make_network: MakeNetwork) -> None:
    network = make_network(make_task(kind))
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert torch.equal(network.normalize(images), network.normalize(images / 255))
    white = network.normalize(torch.ones(1, 3, 1, 1)).flatten()
    expected = [(1 - mean) / std for mean, std in zip(network.mean, network.std, strict=True)]
    torch.testing.assert_close(white, torch.tensor(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_two_pictures_are_learnt(kind: str, make_task: MakeTask, make_network: MakeNetwork) -> None:
    network = make_network(make_task(kind)).train()
    images, targets = torch.rand(2, 3, 64, 64), targets_of(kind)
    if kind == "segmentation":
        targets = (torch.arange(64) // 22).expand(2, 64, 64)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(40):
        loss = torch.stack(list(network.loss(images, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@pytest.mark.parametrize("kind", KINDS)
def test_predict_keeps_the_mode_and_speaks_json(kind: str, make_task: MakeTask, make_network: MakeNetwork) -> None:
    network = make_network(make_task(kind)).train()
    network.backbone.eval()
    predictions = network.predict(torch.rand(2, 3, 64, 64))
    assert network.training
    assert network.head.training
    assert not network.backbone.training
    assert len(predictions) == 2
    assert json.loads(json.dumps(predictions[0].to_json())) == predictions[0].to_json()


def test_labels_are_smoothed_as_in_timm_mixed_ones_too(make_task: MakeTask, make_network: MakeNetwork) -> None:
    network = make_network(make_task("classification", label_smoothing=0.2))
    images, hard = torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 2, 1])
    logits = network(images)
    torch.testing.assert_close(network.loss(images, hard)["loss_class"], LabelSmoothingCrossEntropy(0.2)(logits, hard))
    smooth, plain = mixup_target(hard, 3, lam=0.3, smoothing=0.2), mixup_target(hard, 3, lam=0.3, smoothing=0.0)
    torch.testing.assert_close(network.loss(images, plain)["loss_class"], SoftTargetCrossEntropy()(logits, smooth))


def test_classification_names_the_best_classes(make_task: MakeTask, make_network: MakeNetwork) -> None:
    network = make_network(make_task("classification"))
    images = torch.rand(2, 3, 64, 64)
    prediction = network.predict(images)[1]
    with torch.no_grad():
        expected = network.eval()(images)[1].softmax(0)
    torch.testing.assert_close(prediction.probabilities, expected)
    name, probability = prediction.top(1)[0]
    assert name == network.classes[int(expected.argmax())]
    assert probability == pytest.approx(float(expected.max()))
    assert [item["probability"] for item in prediction.to_json()["top"]] == sorted(expected.tolist(), reverse=True)


def test_crowds_and_flat_boxes_do_not_teach(make_task: MakeTask, make_network: MakeNetwork) -> None:
    network = make_network(make_task("detection"))
    seen: list[Any] = []
    network.head.losses = lambda maps, targets, sizes: seen.extend(targets) or {}
    target = {
        "boxes": torch.tensor([[0.0, 0, 9, 9], [5, 5, 5, 9], [1, 1, 8, 8], [3, 9, 9, 4]]),
        "labels": torch.arange(4),
        "crowd": torch.tensor([False, False, True, False]),
        "masks": torch.ones(4, 64, 64, dtype=torch.bool),
    }
    network.loss(torch.rand(1, 3, 64, 64), [target])
    assert seen[0]["labels"].tolist() == [0]
    assert seen[0]["boxes"].tolist() == [[0, 0, 9, 9]]
    assert seen[0]["masks"].shape == (1, 64, 64)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_boxes_and_masks_come_back_in_original_pixels(make_task: MakeTask, make_network: MakeNetwork) -> None:
    network = make_network(make_task("detection"))
    assert isinstance(network, DetectionNetwork)
    asked: list[Any] = []

    def detect(maps: Any, sizes: Any) -> list[dict[str, Tensor]]:
        asked.extend(sizes)
        found = {
            "boxes": torch.tensor([[16.0, 8.0, 48.0, 24.0], [0.0, 0.0, 64.0, 32.0]]),
            "labels": torch.tensor([2, 0]),
            "scores": torch.tensor([0.9, 0.5]),
            "masks": torch.ones(2, 28, 28),
        }
        return [found]

    network.head.detect = detect
    info = ImageInfo(id=1, size=(64, 256), valid=(32, 64))
    (prediction,) = network.predict(torch.rand(1, 3, 64, 64), [info])
    assert asked == [(32, 64)]
    assert prediction.boxes.tolist() == [[64, 16, 192, 48], [0, 0, 256, 64]]
    inside = torch.zeros(64, 256, dtype=torch.bool)
    inside[16:48, 64:192] = True
    assert torch.equal(prediction.masks[0], inside)
    assert prediction.masks[1, 2:-2, 6:-6].all()  # bilinear sampling rounds the corners off

    first = prediction.to_json()["objects"][0]
    assert first["category"] == "star"
    assert first["bbox"] == [64, 16, 128, 32]
    assert torch.equal(torch.from_numpy(reference_masks.decode(first["segmentation"])).bool(), inside)


def test_detections_of_a_padded_picture_lie_in_the_original(make_task: MakeTask, make_network: MakeNetwork) -> None:
    network = make_network(make_task("detection"))
    info = ImageInfo(id=1, size=(90, 47), valid=(64, 33))
    (prediction,) = network.predict(torch.rand(1, 3, 64, 64), [info])
    assert len(prediction.boxes)
    assert (prediction.boxes >= 0).all()
    assert (prediction.boxes[:, 2] <= 47).all()
    assert (prediction.boxes[:, 3] <= 90).all()
    assert prediction.masks.shape == (len(prediction.boxes), 90, 47)


def test_masks_are_pasted_as_by_grid_sampling() -> None:
    masks, boxes, size = torch.rand(6, 28, 28), torch.rand(6, 4) * 20, (40, 50)
    boxes[:, 2:] += 21
    x, y = torch.arange(50) + 0.5, torch.arange(40) + 0.5
    grids = []
    for x0, y0, x1, y1 in boxes:
        gx, gy = (x - x0) / (x1 - x0) * 2 - 1, (y - y0) / (y1 - y0) * 2 - 1
        grids.append(torch.stack((gx.expand(40, 50), gy[:, None].expand(40, 50)), dim=-1))
    expected = F.grid_sample(masks[:, None], torch.stack(grids), align_corners=False)[:, 0]
    pasted = paste_masks(masks, boxes, size)
    clear = (expected - 0.5).abs() > 1e-4
    assert torch.equal(pasted[clear], (expected > 0.5)[clear])
    assert clear.float().mean() > 0.99
    assert paste_masks(masks[:0], boxes[:0], size).shape == (0, 40, 50)
    assert paste_masks(torch.full((1, 2, 2), 0.5), torch.tensor([[0.0, 0, 4, 4]]), (4, 4))[0, 1:3, 1:3].all()


class _Logits(SegmentationHead):
    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, maps: Any) -> Tensor:
        return self.logits


@pytest.mark.parametrize("at_once", [2**26, 1])
def test_label_maps_come_back_in_original_pixels_without_padding(
    at_once: int, make_task: MakeTask, make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels, "_VALUES_AT_ONCE", at_once)
    network = make_network(make_task("segmentation"))
    logits = torch.zeros(1, 3, 64, 64)
    logits[:, 0, :, :16] = 1
    logits[:, 1, :, 16:] = 1
    logits[:, 2, :, 32:] = 100  # what the network says of the padding must not leak in
    network.head = _Logits(logits)
    (prediction,) = network.predict(torch.rand(1, 3, 64, 64), [ImageInfo(id=1, size=(128, 96), valid=(64, 32))])
    expected = (torch.arange(96) >= 48).to(torch.uint8).expand(128, 96)
    assert torch.equal(prediction.labels, expected)
    assert prediction.to_json() == {"size": [128, 96], "shares": {"circle": 0.5, "square": 0.5}}


def test_a_label_map_made_class_by_class_is_the_same(
    make_task: MakeTask, make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_network(make_task("segmentation"))
    images, infos = torch.rand(2, 3, 64, 64), [ImageInfo(id=1, size=(50, 70), valid=(46, 64))] * 2
    whole = network.predict(images, infos)
    monkeypatch.setattr(pixels, "_VALUES_AT_ONCE", 1)
    pieces = network.predict(images, infos)
    assert all(torch.equal(a.labels, b.labels) for a, b in zip(whole, pieces, strict=True))


def test_ignored_pixels_do_not_count(make_task: MakeTask, make_network: MakeNetwork) -> None:
    network = make_network(make_task("segmentation", dropout=0.0))
    images, targets = torch.rand(2, 3, 64, 64), torch.randint(0, 3, (2, 64, 64))
    targets[:, 40:] = IGNORE
    logits = F.interpolate(network(images), size=(64, 64), mode="bilinear", align_corners=False)
    expected = F.cross_entropy(logits[:, :, :40], targets[:, :40])
    losses = network.loss(images, targets)
    torch.testing.assert_close(losses["loss_seg"], expected)
    assert set(losses) == {"loss_seg", "loss_aux"}

    losses = network.loss(images, torch.full_like(targets, IGNORE))
    assert [loss.item() for loss in losses.values()] == [0, 0]
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_the_auxiliary_head_only_serves_the_loss(make_task: MakeTask, make_network: MakeNetwork) -> None:
    network = make_network(make_task("segmentation"))
    assert isinstance(network, SegmentationNetwork)
    assert network.auxiliary is not None
    nn.init.constant_(network.auxiliary.classifier.weight, float("nan"))
    assert network.eval()(torch.rand(1, 3, 64, 64)).isfinite().all()
    without = make_network(make_task("segmentation", aux_weight=0))
    assert not any("auxiliary" in name for name in without.state_dict())
    assert set(without.loss(torch.rand(2, 3, 64, 64), torch.zeros(2, 64, 64).long())) == {"loss_seg"}


@pytest.mark.parametrize(("name", "usual"), [("vit_mvt_nano", False), ("efficientnet", True)])
def test_channels_last_is_a_layout_of_memory_alone(name: str, usual: bool) -> None:
    network = build_network(SMALL[name], make_tasks()["seg"], SMALL[name].smallest)
    images, seen = make_batch("segmentation")[0], []
    network.backbone.register_forward_pre_hook(
        lambda module, given: seen.append(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    found = [network.eval()(images)]
    for wanted in (False, True):
        with network.laid_out(wanted):
            found.append(network.eval()(images))
    network(images)
    assert seen == [usual, False, True, usual]
    torch.testing.assert_close(found[1], found[2])
    assert torch.equal(found[0], found[1 + usual])
