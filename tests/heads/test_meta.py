"""Every head can be built on `meta` and bound to real tensors; it is then the same network."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nasmvt.heads import (
    FCNHead,
    FeaturePyramid,
    LinearHead,
    MaskRCNNHead,
    MultiScaleNeck,
    RetinaNetHead,
    SegFormerHead,
    SemanticFPNHead,
    SimpleFeaturePyramid,
    UPerNetHead,
)
from nasmvt.seeding import seeded
from tests.heads.binding import bind, tensors_outside_the_state


def rcnn() -> MaskRCNNHead:
    return MaskRCNNHead(
        (4, 8, 16), 3, width=8, rpn_convs=1, box_convs=1, box_hidden=16, mask_convs=1, post_nms=(20, 10)
    )


def detector_loss(head: nn.Module, maps: list[Tensor]) -> Tensor:
    target = {
        "boxes": torch.tensor([[4.0, 4.0, 24.0, 28.0]]),
        "labels": torch.tensor([1]),
        "masks": torch.ones(1, 32, 32, dtype=torch.bool),
    }
    return torch.stack(list(head.losses(maps, [target] * 2, [(32, 32)] * 2).values())).sum()


def plain_loss(head: nn.Module, maps: list[Tensor]) -> Tensor:
    out = head(maps)
    return sum(((o**2).mean() for o in out), torch.zeros(())) if isinstance(out, tuple) else (out**2).mean()


CASES: dict[str, tuple[Callable[[], nn.Module], list[int], Callable[[nn.Module, list[Tensor]], Tensor]]] = {
    "linear": (lambda: LinearHead(8, 5), [4], plain_loss),
    "mlp": (lambda: LinearHead(8, 5, hidden=16), [4], plain_loss),
    "simple pyramid": (lambda: SimpleFeaturePyramid(8, 16, 8), [4], plain_loss),
    "multi-scale neck": (lambda: MultiScaleNeck(8, 16), [4, 4, 4, 4], plain_loss),
    "fpn": (lambda: FeaturePyramid((8, 8), (4, 8), 8), [8, 4], plain_loss),
    "upernet": (lambda: UPerNetHead((8, 8), 3, channels=8), [8, 4], plain_loss),
    "fcn": (lambda: FCNHead((8,), 3, channels=8), [4], plain_loss),
    "semantic fpn": (lambda: SemanticFPNHead((8, 8), (4, 8), 3, 8), [8, 4], plain_loss),
    "segformer": (lambda: SegFormerHead((8, 8), 3, 8), [8, 4], plain_loss),
    "retinanet": (lambda: RetinaNetHead((4, 8), 3, width=8, convention="mmdetection"), [8, 4], detector_loss),
    "mask rcnn": (rcnn, [8, 4, 2], detector_loss),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bound_skeleton_is_the_network_and_trains(name: str) -> None:
    build, sides, loss = CASES[name]
    real = build()
    with torch.device("meta"):
        skeleton = build()
    assert all(tensor.is_meta for tensor in skeleton.state_dict().values())
    assert not any(tensor.is_meta for tensor in tensors_outside_the_state(skeleton))
    bind(skeleton, real)
    maps = [torch.randn(2, 8, side, side) for side in sides]
    losses = []
    for network in (real, skeleton):
        with seeded("test"):
            losses.append(loss(network, maps))
    assert torch.equal(losses[0], losses[1])

    optimizer = torch.optim.SGD(skeleton.parameters(), lr=1e-2)
    losses[1].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in skeleton.parameters())
    optimizer.step()
    with seeded("test"):
        assert loss(skeleton, maps) < losses[1]


def test_parameters_do_not_come_late() -> None:
    head = rcnn()
    before = set(head.state_dict())
    detector_loss(head, [torch.randn(2, 8, side, side) for side in (8, 4, 2)])
    head.eval().detect([torch.randn(1, 8, side, side) for side in (8, 4, 2)], [(32, 32)])
    assert set(head.state_dict()) == before
