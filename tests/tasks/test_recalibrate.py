from collections.abc import Callable

import pytest
import torch
from timm.layers import DropPath
from torch import Tensor, nn

from nasmvt.data.types import Batch, ImageInfo
from nasmvt.tasks import Task, TaskNetwork
from nasmvt.tasks.recalibrate import recalibrate


class NormedBackbone(nn.Module):
    strides, widths = (16,), (8,)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 16, stride=16)
        self.dropout, self.drop_path = nn.Dropout(0.5), DropPath(0.5)
        self.norm = nn.BatchNorm2d(8, momentum=0.3)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.norm(self.drop_path(self.dropout(self.conv(images)))),)


def batches(targets: Callable[[int], object]) -> list[Batch]:
    infos = [ImageInfo(id=i, size=(64, 64), valid=(64, 64)) for i in range(4)]
    return [Batch(images=torch.rand(n, 3, 64, 64), targets=targets(n), infos=infos[:n]) for n in (4, 2, 3)]


def labels(n: int) -> Tensor:
    return torch.zeros(n, dtype=torch.int64)


def test_statistics_are_the_plain_average_over_batches(make_task: Callable[..., Task]) -> None:
    backbone = NormedBackbone()
    network = make_task("classification").network(backbone)
    backbone.norm.running_mean += 7  # what was there before does not count
    network.head.eval()
    data = batches(labels)
    weights = {name: p.clone() for name, p in network.named_parameters()}
    recalibrate(network, data, "cpu")

    with torch.no_grad():
        values = [backbone.conv(network.normalize(b.images)).transpose(0, 1).flatten(1) for b in data]
    torch.testing.assert_close(backbone.norm.running_mean, torch.stack([v.mean(1) for v in values]).mean(0))
    torch.testing.assert_close(backbone.norm.running_var, torch.stack([v.var(1) for v in values]).mean(0))
    assert backbone.norm.momentum == 0.3
    assert network.training
    assert backbone.dropout.training
    assert not network.head.training
    assert all(torch.equal(p, weights[name]) and p.grad is None for name, p in network.named_parameters())


def test_a_detector_is_recalibrated_alike_each_time(
    make_task: Callable[..., Task], make_network: Callable[[Task], TaskNetwork]
) -> None:
    network = make_network(make_task("detection"))

    def objects(n: int) -> list[dict[str, Tensor]]:
        masks = torch.ones(1, 64, 64, dtype=torch.bool)
        target = {"boxes": torch.tensor([[4.0, 4, 40, 30]]), "labels": torch.tensor([1]), "masks": masks}
        return [target] * n

    data = batches(objects)
    network.eval()
    start = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    results = []
    for _ in range(2):
        recalibrate(network, data, "cpu")
        results.append({name: value.clone() for name, value in network.state_dict().items()})
        torch.rand(3)
    assert all(torch.equal(results[0][name], results[1][name]) for name in start)
    assert not network.training
    changed = {name for name in start if not torch.equal(start[name], results[0][name])}
    assert {name.rsplit(".", 1)[1] for name in changed} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }
    assert any(name.startswith("head.roi_heads.box_head") for name in changed)
    torch.set_rng_state(random)
    recalibrate(network, data, "cpu")
    assert torch.equal(torch.get_rng_state(), random)


def test_a_head_without_batchnorm_is_not_run(make_task: Callable[..., Task], monkeypatch) -> None:
    """The statistics are those of a pass through the whole network, bit for bit."""
    torch.manual_seed(0)
    first = make_task("classification").network(NormedBackbone())
    second = make_task("classification").network(NormedBackbone())
    second.load_state_dict(first.state_dict())
    second.head.norm = nn.BatchNorm2d(1)  # never called, but it belongs to the head
    data = batches(labels)
    recalibrate(second, data, "cpu")
    monkeypatch.setattr(first, "loss", lambda *_: pytest.fail("the head is not needed"))
    recalibrate(first, data, "cpu")
    assert torch.equal(first.backbone.norm.running_mean, second.backbone.norm.running_mean)
    assert torch.equal(first.backbone.norm.running_var, second.backbone.norm.running_var)


def test_without_batchnorm_or_batches_nothing_happens(
    make_task: Callable[..., Task], make_network: Callable[[Task], TaskNetwork]
) -> None:
    recalibrate(make_network(make_task("classification")), _never(), "cpu")
    backbone = NormedBackbone()
    backbone.norm.running_mean += 7
    recalibrate(make_task("classification").network(backbone), [], "cpu")
    assert (backbone.norm.running_mean == 7).all()


def _never() -> "list[Batch]":
    class Never(list[Batch]):
        def __iter__(self) -> object:  # type: ignore[override]
            pytest.fail("no batch is wanted")

    return Never()
