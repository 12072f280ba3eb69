from collections.abc import Callable
from typing import Any

import pytest
import torch

from nasmvt.data.masks import ObjectMasks
from nasmvt.data.types import Batch, ImageInfo
from nasmvt.errors import UserError
from nasmvt.tasks import Task, TaskNetwork
from nasmvt.tasks.evaluate import evaluate

SIZES = [
    ((64, 64), (64, 64)),
    ((40, 64), (40, 64)),
    ((128, 70), (64, 35)),
    ((30, 20), (64, 43)),
    ((64, 32), (64, 32)),
]


def pictures() -> tuple[torch.Tensor, list[ImageInfo]]:
    images = torch.zeros(len(SIZES), 3, 64, 64)
    for image, (_, (height, width)) in zip(images, SIZES, strict=True):
        image[:, :height, :width] = torch.rand(3, height, width)
    return images, [ImageInfo(id=i, size=size, valid=valid) for i, (size, valid) in enumerate(SIZES)]


def imperfect_targets(kind: str, predictions: list[Any]) -> Any:
    """Turn predictions into targets that they fit in part."""
    if kind == "classification":
        labels = torch.stack([p.probabilities.argmax() for p in predictions])
        labels[0] = (labels[0] + 1) % 3
        return labels
    if kind == "segmentation":
        maps = [p.labels.clone() for p in predictions]
        for label_map in maps:
            label_map[:10] = 1
        return maps
    # untrained scores are all alike: every second detection is the truth
    return [
        {"boxes": p.boxes[::2], "labels": p.labels[::2], "masks": ObjectMasks.of(p.masks[::2])} for p in predictions
    ]


@pytest.mark.parametrize("kind", ["classification", "detection", "segmentation"])
def test_the_size_of_the_batches_does_not_matter(
    kind: str, make_task: Callable[..., Task], make_network: Callable[[Task], TaskNetwork]
) -> None:
    task = make_task(kind)
    network = make_network(task)
    images, infos = pictures()
    predictions = [network.predict(images[i : i + 1], infos[i : i + 1])[0] for i in range(len(images))]
    targets = imperfect_targets(kind, predictions)

    def batches(size: int) -> list[Batch]:
        starts = range(0, len(images), size)
        parts = [slice(start, start + size) for start in starts]
        return [Batch(images=images[p], targets=targets[p], infos=infos[p]) for p in parts]

    one = evaluate(network, batches(1), task, "cpu")
    assert 0 < one[task.primary] < 100
    assert evaluate(network, batches(4), task, "cpu") == pytest.approx(one, abs=1e-6)


def test_evaluation_gives_the_mode_back_and_needs_no_gradient(
    make_task: Callable[..., Task], make_network: Callable[[Task], TaskNetwork]
) -> None:
    task = make_task("segmentation")
    network = make_network(task).train()
    network.head.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images, infos = pictures()
    maps = [torch.zeros(size, dtype=torch.int64) for size, _ in SIZES]
    evaluate(network, [Batch(images=images, targets=maps, infos=infos)], task, "cpu")
    assert network.training
    assert not network.head.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_no_pictures_is_a_mistake(make_task: Callable[..., Task], make_network: Callable[[Task], TaskNetwork]) -> None:
    task = make_task("classification")
    with pytest.raises(UserError, match="'classification' has none"):
        evaluate(make_network(task), [], task, "cpu")
