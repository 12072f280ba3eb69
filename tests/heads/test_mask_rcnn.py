import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from nasmvt.heads import MaskRCNNHead
from nasmvt.heads.anchors import StridedAnchors
from nasmvt.heads.roi import BoxPredictor, MaskPredictor, roi_align

STRIDES = (4, 8, 16)


def tiny(masks: bool = True) -> MaskRCNNHead:
    return MaskRCNNHead(STRIDES, 3, masks=masks, width=8, rpn_convs=1, box_convs=1, box_hidden=16, mask_convs=1)


def maps(batch: int = 2, side: int = 32) -> list[Tensor]:
    return [torch.randn(batch, 8, side // s, side // s) for s in STRIDES]


def target(n: int, side: int = 32) -> dict[str, Tensor]:
    corner = torch.arange(n)[:, None] * 2.0 + torch.tensor([[2.0, 3.0]])
    return {
        "boxes": torch.cat((corner, corner + 12), dim=1),
        "labels": torch.arange(n) % 3,
        "masks": torch.ones(n, side, side, dtype=torch.bool),
    }


def test_anchors_are_torchvisions_where_the_canvas_is_a_multiple_of_the_strides() -> None:
    images = ImageList(torch.zeros(2, 3, 64, 32), [(64, 32), (50, 20)])
    levels = [torch.zeros(2, 8, 64 // s, 32 // s) for s in STRIDES]
    ours = StridedAnchors(STRIDES, 8, (0.5, 1.0, 2.0))
    theirs = AnchorGenerator(tuple((8 * s,) for s in STRIDES), ((0.5, 1.0, 2.0),) * 3)
    assert all(torch.equal(a, b) for a, b in zip(ours(images, levels), theirs(images, levels), strict=True))


def test_anchors_keep_their_stride_on_other_canvases() -> None:
    # 40 pixels at stride 16 make 3 cells: torchvision would put them 13 pixels apart
    anchors = StridedAnchors((16,), 8, (1.0,))(
        ImageList(torch.zeros(1, 3, 40, 40), [(40, 40)]), [torch.zeros(1, 8, 3, 3)]
    )
    centers = (anchors[0][:, :2] + anchors[0][:, 2:]) / 2
    assert centers[:, 0].unique().tolist() == [0, 16, 32]


def test_regions_are_pooled_at_declared_strides_whatever_the_pictures() -> None:
    pool = roi_align((4, 8), 1)
    levels = {"0": torch.full((1, 1, 16, 16), 1.0), "1": torch.full((1, 1, 8, 8), 2.0)}
    levels["0"][0, 0, 9:16, 9:16] = 5.0
    boxes = [torch.tensor([[40.0, 40.0, 56.0, 56.0]])]
    assert pool(levels, boxes, [(10, 7)]).item() == 5.0
    assert pool.scales == [1 / 4, 1 / 8]


def test_predictors_say_nothing_of_the_background() -> None:
    scores, boxes = BoxPredictor(16, 3)(torch.randn(5, 16))
    assert scores.shape == (5, 4)
    assert boxes.shape == (5, 16)
    assert (boxes[:, :4] == 0).all()
    assert (boxes[:, 4:] != 0).all()
    masks = MaskPredictor(8, 3)(torch.randn(5, 8, 14, 14))
    assert masks.shape == (5, 4, 28, 28)
    assert (masks[:, 0] == 0).all()
    assert masks[:, 1:].any()


@pytest.mark.parametrize("objects", [(2, 1), (1, 0), (0, 0)])
@pytest.mark.parametrize("masks", [True, False])
def test_losses_are_finite_with_and_without_objects(objects: tuple[int, int], masks: bool) -> None:
    head = tiny(masks)
    losses = head.losses(maps(), [target(n) for n in objects], [(32, 32)] * 2)
    assert set(losses) == {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"} | (
        {"loss_mask"} if masks else set()
    )
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert math.isfinite(total.item())
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())


def test_losses_leave_the_targets_alone() -> None:
    targets = [target(2), target(1)]
    tiny().losses(maps(), targets, [(32, 32)] * 2)
    assert targets[0]["labels"].tolist() == [0, 1]


def test_detections_lie_in_the_picture_and_count_labels_from_0() -> None:
    head = tiny().eval()
    torch.nn.init.normal_(head.roi_heads.box_predictor.boxes.weight, std=0.5)
    with torch.no_grad():
        first, second = head.detect(maps(), [(32, 32), (20, 12)])
    for found, (height, width) in ((first, (32, 32)), (second, (20, 12))):
        boxes = found["boxes"]
        assert 0 < len(boxes) <= 100
        assert (boxes >= 0).all()
        assert (boxes[:, 0::2] <= width).all()
        assert (boxes[:, 1::2] <= height).all()
        assert set(found["labels"].tolist()) == {0, 1, 2}
        assert (found["scores"].diff() <= 0).all()
        assert found["masks"].shape == (len(boxes), 28, 28)
        assert found["masks"].min() >= 0
        assert found["masks"].max() <= 1


def test_the_best_class_is_the_one_that_was_trained() -> None:
    head = tiny().eval()
    torch.nn.init.constant_(head.roi_heads.box_predictor.scores.bias, 0)
    head.roi_heads.box_predictor.scores.bias.data[2] = 10  # background is 0, so this is label 1
    with torch.no_grad():
        found = head.detect(maps(1), [(32, 32)])[0]
    assert found["labels"][0] == 1


def test_the_mode_must_fit() -> None:
    head = tiny()
    with pytest.raises(RuntimeError, match=r"eval\(\)"):
        head.detect(maps(), [(32, 32)] * 2)
    with pytest.raises(RuntimeError, match=r"train\(\)"):
        head.eval().losses(maps(), [target(1)] * 2, [(32, 32)] * 2)
