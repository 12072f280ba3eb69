"""Every dense head: images of any size alone and in a batch, images without objects, networks that find nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from nasmvt.config import parse
from nasmvt.data import EvalSet, open_dataset
from nasmvt.data.transforms import EvalTransform, collate
from nasmvt.data.types import Batch, DataInfo
from nasmvt.tasks import Task, TaskConfig, TaskNetwork
from nasmvt.tasks.evaluate import evaluate
from nasmvt.tasks.heads import HEADS
from tests.conftest import CLASSES, randomize
from tests.families.reference import SHARED
from tests.supernet.test_every_detector import _REGIONS, VARIANTS
from tests.supernet.test_every_detector import HEADS as DETECTORS
from tests.supernet.test_every_head import SETTINGS
from tests.tasks.test_metrics import reference

FINDING: dict[str, dict[str, Any]] = {**DETECTORS, **VARIANTS, "mask rcnn": {"type": "mask_rcnn", **_REGIONS}}
FINDING["panoptic"] = {"type": "panoptic_fpn", **SETTINGS["panoptic_fpn"], "score_threshold": 0.2}
PIXELS: dict[str, dict[str, Any]] = {
    "upernet": {"type": "upernet", "channels": 8, "aux_weight": 0},
    "semantic fpn": {"type": "semantic_fpn", "width": 8, "channels": 8},
    "segformer": {"type": "segformer", "channels": 8},
}
SIZES = ((45, 71), (64, 40), (33, 33), (71, 45), (45, 71), (64, 64), (58, 47))
"""Of images; their canvases differ."""


class Maps(nn.Module):
    """Four maps at strides 4 to 32, normed like a transformer's."""

    strides, widths = (4, 8, 16, 32), (8, 8, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(8 if i else 3, 8, 2 if i else 4, stride=2 if i else 4) for i in range(4))
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(4))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x, maps = nn.functional.pad(images, (0, -images.shape[3] % 32, 0, -images.shape[2] % 32)), []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(layer(x).movedim(1, -1)).movedim(-1, 1)
            maps.append(x)
        return tuple(maps)


def build(head: str, classes: Sequence[str] = CLASSES, divisor: int = 32, **changes: Any) -> tuple[Task, TaskNetwork]:
    settings = {**(FINDING | PIXELS)[head], **changes}
    kind = HEADS.get(settings["type"]).kind
    data = {"test": {"type": "keep_ratio", "short": 48, "divisor": divisor}}
    config = parse(TaskConfig, {"kind": kind, "data": data, "head": settings, "batch_size": 2}, head)
    things = len(classes) - 1 if kind == "panoptic" else 0
    info = DataInfo(kind=kind, classes=tuple(classes), has_masks=kind != "segmentation", things=things)
    task = Task(name=head, config=config, info=info)
    network = task.network(Maps())
    randomize(network)
    return task, network


def drawn(size: tuple[int, int], seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def batches(task: Task, number: int) -> list[Batch]:
    transform = EvalTransform(task.config.data)
    placed = [view for i, size in enumerate(SIZES) for view in transform.placed(drawn(size, i), None, i)]
    return [
        collate(placed[start : start + number], lambda targets, canvas: None, transform.placement, transform.colour)
        for start in range(0, len(placed), number)
    ]


@pytest.mark.parametrize("divisor", [1, 32])
@pytest.mark.parametrize("head", [*FINDING, *PIXELS])
def test_nothing_is_computed_differently_in_a_batch_than_alone(head: str, divisor: int) -> None:
    task, network = build(head, divisor=divisor)
    alone, together = (
        [found for batch in batches(task, number) for found in network.predict(batch.images, batch.infos)]
        for number in (1, 7)
    )
    assert len({info.canvas for batch in batches(task, 7) for info in batch.infos}) > 2
    seen = 0
    for size, one, other in zip(SIZES, alone, together, strict=True):
        for name, tensor in vars(one).items():
            if isinstance(tensor, Tensor):
                seen += tensor.numel()
                torch.testing.assert_close(tensor, getattr(other, name), rtol=1e-5, atol=1e-5)
        if hasattr(one, "boxes"):
            assert (one.boxes >= 0).all()
            assert (one.boxes[:, 2:] <= torch.tensor([size[1], size[0]])).all()
    assert seen


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
@pytest.mark.parametrize(("head", "divisor"), [("retinanet", 1), ("cascade", 32), ("deformable detr", 32)])
def test_map_of_real_images_is_that_of_pycocotools_whatever_the_batches(head: str, divisor: int) -> None:
    root = SHARED / "data" / "det_pennfudan"
    if not root.is_dir():
        pytest.skip(f"there is no {root}: set NASMVT_SHARED")
    more = {"pre_nms": (300, 300), "post_nms": (300, 300)} if head == "cascade" else {}
    task, network = build(head, ("person",), divisor, detections=100, **more)
    config = task.config.data.model_copy(update={"format": "coco", "root": root})
    dataset = open_dataset(config, "detection", "val", 0)
    figures, pictures = [], []
    for number in (1, 7):
        images = EvalSet(dataset, range(9), config, number)
        figures.append(evaluate(network, images, task, "cpu"))
        pictures = [
            pair
            for batch in images
            for pair in zip(network.predict(batch.images, batch.infos), batch.targets, strict=True)
        ]
    assert figures[0] == pytest.approx(figures[1], abs=1e-6)
    assert figures[1] == pytest.approx(reference(pictures), abs=1e-9)
    assert any(figures[1].values())


def objects(count: int) -> dict[str, Tensor]:
    masks = torch.zeros(count, 64, 64, dtype=torch.bool)
    masks[:, 4:40, :24] = True
    return {
        "boxes": torch.tensor([[0.0, 4, 24, 40]]).expand(count, 4),
        "labels": torch.zeros(count, dtype=torch.int64),
        "masks": masks,
        "semantic": torch.where(masks.any(0), 0, 255).to(torch.uint8),
    }


@pytest.mark.parametrize("counts", [(0, 0), (0, 2)])
@pytest.mark.parametrize("head", FINDING)
def test_images_without_objects_are_learned_from(head: str, counts: tuple[int, int]) -> None:
    _, network = build(head)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    losses = network.train().loss(images, [objects(count) for count in counts])
    assert all(loss.isfinite() for loss in losses.values())
    for name, loss in losses.items():
        if not sum(counts) and ("box" in name or "mask" in name or "giou" in name):
            assert loss == 0
        elif "mask" not in name:
            assert loss > 0 or "rpn_box" in name or "semantic" in name or "loss_box_reg" in name
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    assert any(p.grad is not None and p.grad.any() for p in network.backbone.parameters())


@pytest.mark.parametrize("head", FINDING)
def test_a_single_class_is_enough(head: str) -> None:
    _, network = build(head, CLASSES[: 2 if head == "panoptic" else 1])
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    assert all(loss.isfinite() for loss in network.train().loss(images, [objects(1)]).values())
    (found,) = network.predict(images)
    assert found.to_json()
    assert head == "panoptic" or not found.labels.any()


@pytest.mark.parametrize("head", [head for head in FINDING if not head.startswith("deformable detr")])
def test_nothing_may_be_found(head: str) -> None:
    _, network = build(head, score_threshold=1.0)
    images = torch.randint(0, 256, (2, 3, 64, 40), dtype=torch.uint8)
    for image, found in zip(images, network.predict(images), strict=True):
        assert head == "panoptic" or found.to_json()["objects"] == []
        assert found.draw(image, 0.0).width >= 40


@pytest.mark.parametrize("over", ["all", "counted"])
@pytest.mark.parametrize("head", PIXELS)
def test_images_of_which_no_pixel_counts(head: str, over: str) -> None:
    _, network = build(head, loss_over=over, aux_weight=0.4, aux_levels=[2])
    targets = torch.full((2, 61, 45), 255)
    images = torch.randint(0, 256, (2, 3, 61, 45), dtype=torch.uint8)
    losses = network.train().loss(images, targets)
    assert not any(loss.detach().any() for loss in losses.values())
    targets[0, :30] = 1
    losses = network.loss(images, targets)
    assert all(loss > 0 and loss.isfinite() for loss in losses.values())
