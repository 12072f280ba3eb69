"""Rules of detectors that look at regions: what each of them changes."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from nasmvt.heads import CascadeMaskRCNNHead, MaskRCNNHead
from nasmvt.heads.boxes import BACKGROUND, IGNORED, assign, giou, suppress
from nasmvt.heads.region_stage import Samples, target_masks
from nasmvt.heads.regions import RegionDetector

STRIDES = (4, 8, 16)
SMALL: dict[str, Any] = {"width": 8, "rpn_convs": 1, "box_convs": 0, "box_hidden": 16, "mask_convs": 1}


def maps(side: int = 32) -> list[Tensor]:
    return [torch.randn(1, 8, side // s, side // s) for s in STRIDES]


def target() -> dict[str, Tensor]:
    masks = torch.zeros(1, 32, 32, dtype=torch.bool)
    masks[:, 4:20, 6:15] = True
    return {"boxes": torch.tensor([[6.0, 4, 24, 20]]), "labels": torch.tensor([1]), "masks": masks}


def test_an_object_takes_its_best_anchor_from_another_one_only_by_mmdetections_rule() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 4, 4], [20, 20, 30, 30], [0, 0, 10, 7]])
    objects = torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 16]])  # the first anchor is best for both, at 0.9 and 0.625
    plain = assign(anchors, objects, 0.8, 0.7)
    assert plain.tolist() == [0, BACKGROUND, BACKGROUND, IGNORED]  # 0.16, 0 and 0.78
    assert assign(anchors, objects, 0.8, 0.7, low_quality=0).tolist() == plain.tolist()
    assert assign(anchors, objects, 0.8, 0.7, low_quality=0, moving=True)[0] == 1
    assert assign(anchors, objects, 0.8, 0.7, low_quality=0.63, moving=True)[0] == 0
    usable = torch.tensor([False, True, True, True])
    assert assign(anchors, objects, 0.8, 0.7, low_quality=0, usable_A=usable).tolist() == [IGNORED, -1, -1, 0]
    assert assign(anchors, objects[:0], 0.8, 0.7, usable_A=usable).tolist() == [IGNORED, -1, -1, -1]


def test_giou_of_boxes_that_overlap_and_that_do_not() -> None:
    a, b = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1]]), torch.tensor([[1.0, 0, 3, 2], [2, 0, 3, 1]])
    assert giou(a, b).tolist() == pytest.approx([2 / 6, 0 - 1 / 3])


def test_boxes_of_other_classes_do_not_suppress_each_other_left_of_the_image_either() -> None:
    boxes = torch.tensor([[-100.0, 0, -90, 10], [-100, 0, -90, 10], [0, 0, 1, 1]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    assert suppress(boxes, scores, torch.tensor([0, 1, 0]), 0.5, 10).tolist() == [0, 1, 2]
    assert suppress(boxes, scores, torch.tensor([0, 0, 0]), 0.5, 10).tolist() == [0, 2]
    # moved apart by the largest coordinate alone, class 1 would land on what class 0 has there
    beside = torch.tensor([[-2.0, 0, -1, 1], [-4, 0, -3, 1], [0, 0, 1, 1]])
    assert suppress(beside, scores, torch.tensor([0, 1, 0]), 0.5, 10).tolist() == [0, 1, 2]


@pytest.mark.parametrize("convention", ["torchvision", "detectron2", "mmdetection"])
def test_every_convention_trains_and_detects_with_and_without_objects(convention: str) -> None:
    head = MaskRCNNHead(STRIDES, 3, convention=convention, score_threshold=0.0, **SMALL)  # type: ignore[arg-type]
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "masks": torch.zeros(0, 32, 32).bool()}
    for wanted in (target(), empty):
        losses = head.losses(maps(), [wanted], [(32, 32)])
        assert all(loss.isfinite() for loss in losses.values())
        assert (losses["loss_mask"] > 0) == (wanted is not empty)
    found = head.eval().detect(maps(), [(32, 32)])[0]
    assert found["masks"].shape == (len(found["boxes"]), 28, 28)


def test_proposal_losses_are_divided_by_the_most_anchors_that_may_be_drawn_in_detectron2() -> None:
    losses = {}
    for convention in ("detectron2", "mmdetection"):
        torch.manual_seed(0)
        head = MaskRCNNHead((16,), 3, extra_level=False, convention=convention, rpn_batch=100, **SMALL)  # type: ignore[arg-type]
        wanted = {**target(), "boxes": torch.tensor([[0.0, 0, 64, 64]]), "size": torch.tensor((32, 32))}
        images = ImageList(torch.zeros(1), [(32, 32)])
        torch.manual_seed(1)
        features = {"0": torch.randn(1, 8, 2, 2)}
        _, losses[convention] = head.rpn(images, features, [wanted])
    # all 12 anchors are drawn, of at most 100; mmdetection counts one for the background, which has none
    ratio = losses["detectron2"]["loss_objectness"] / losses["mmdetection"]["loss_objectness"]
    assert ratio.item() == pytest.approx(0.13, rel=1e-3)


def test_only_anchors_inside_the_image_count_in_mmdetections_cascade() -> None:
    head = CascadeMaskRCNNHead((4, 8), 3, anchor_scale=2, **SMALL)
    anchors = head.rpn.anchor_generator(
        ImageList(torch.zeros(1), [(32, 30)]), [torch.zeros(1, 8, s, s) for s in (8, 4)]
    )
    wanted = {**target(), "size": torch.tensor((32, 30))}
    (labels,), _ = head.rpn.assign_targets_to_anchors(anchors, [wanted])
    x0, y0, x1, y1 = anchors[0].unbind(1)
    inside = (x0 >= 0) & (y0 >= 0) & (x1 < 30) & (y1 < 32)
    assert 0 < inside.sum() < len(inside)
    assert (labels[~inside] == -1).all()
    assert (labels[inside] != -1).any()


@pytest.mark.parametrize(("convention", "kept"), [("torchvision", 1), ("detectron2", 1), ("mmdetection", 2)])
def test_proposals_without_an_area_are_kept_by_mmdetection(convention: str, kept: int) -> None:
    rpn = MaskRCNNHead(STRIDES, 3, convention=convention, **SMALL).eval().rpn  # type: ignore[arg-type]
    boxes = torch.tensor([[[0.0, 0, 9, 9], [20, 4, 20, 9]]])
    assert len(rpn.filter_proposals(boxes, torch.tensor([[2.0, 1.0]]), [(32, 32)], [2])[0][0]) == kept


@pytest.mark.parametrize(("convention", "divisor"), [("torchvision", 8), ("detectron2", 16), ("mmdetection", 10)])
def test_what_the_losses_of_proposals_are_divided_by_without_objects(convention: str, divisor: int) -> None:
    """mmdetection counts an image without positives as if it had one."""
    rpn = MaskRCNNHead(STRIDES, 3, convention=convention, **{**SMALL, "rpn_batch": 8}).rpn  # type: ignore[arg-type]
    labels = [torch.zeros(4), torch.zeros(4)]
    loss, boxes = rpn.compute_loss(torch.zeros(8, 1), torch.zeros(8, 4), labels, [torch.zeros(4, 4)] * 2)
    assert float(loss) == pytest.approx(8 * math.log(2) / divisor)
    assert float(boxes) == 0


def test_masks_to_learn_are_zero_or_one_but_by_torchvisions_rule() -> None:
    masks = torch.zeros(1, 32, 32)
    masks[:, :, 5:] = 1
    ones = torch.ones(1, dtype=torch.int64)
    region = Samples(boxes=torch.tensor([[0.0, 0, 8, 8]]), labels=ones, objects=ones - 1, true=ones.bool())
    # 4 cells of 2 pixels each: read at their centres, columns have the shares 0, 0, 1/2 and 1 of the mask
    assert target_masks(masks, region, 4, binary=True)[0, 0].tolist() == [0, 0, 1, 1]
    soft = target_masks(masks, region, 4, binary=False)[0, 0]
    assert soft[:2].tolist() == [0, 0]
    assert soft[2] not in (0, 1)


def cascade(convention: str, **settings: Any) -> CascadeMaskRCNNHead:
    return CascadeMaskRCNNHead(STRIDES, 3, convention=convention, **{**SMALL, **settings})  # type: ignore[arg-type]


def test_a_stage_of_detectron2_sends_a_third_of_its_gradient_to_the_maps() -> None:
    assert cascade("detectron2").rules.shares_gradient
    assert not cascade("mmdetection").rules.shares_gradient
    stage, grads = cascade("detectron2").stages[0], []
    regions, features = [torch.tensor([[2.0, 2, 30, 28]])], {str(i): m for i, m in enumerate(maps())}
    for factor in (1.0, 1 / 3):
        features = {name: m.detach().requires_grad_() for name, m in features.items()}
        logits, _ = stage.boxes(features, regions, [(32, 32)], factor)
        logits.square().sum().backward()
        grads.append(torch.cat([m.grad.flatten() for m in features.values() if m.grad is not None]))
    assert grads[0].abs().sum() > 0
    assert torch.allclose(grads[1], grads[0] / 3)


def test_later_stages_draw_anew_by_mmdetections_rule_and_keep_their_regions_by_detectron2s() -> None:
    boxes = torch.tensor([[6.0, 4, 24, 19], [0, 0, 4, 4]])
    wanted = {**target(), "labels": torch.tensor([2])}
    for convention, number in (("mmdetection", 3), ("detectron2", 2)):
        head = cascade(convention)
        samples = head._sample(head.stages[1], boxes, wanted, draws=head.rules.draws_anew)
        assert len(samples.boxes) == number
        assert sorted(samples.labels.tolist()) == [0, 2, 2][:number] if number == 3 else [0, 2]
        logits, offsets = torch.zeros(number, 4), torch.zeros(number, 4, 4)
        (moved,) = head._next(head.stages[1], [samples], logits, offsets, [(32, 32)])
        assert len(moved) == 2  # the true box is left out, or was not added


def test_the_stages_average_probabilities_or_logits() -> None:
    head = cascade("mmdetection").eval()
    features = {str(i): m for i, m in enumerate(maps())}
    regions = [torch.tensor([[2.0, 2, 30, 28]])]
    for stage in head.stages:
        torch.nn.init.normal_(stage.box_predictor.scores.weight)
    by_logits, _ = head.candidates(features, regions, [(32, 32)])
    head.rules = dataclasses.replace(head.rules, mean_logits=False)
    by_probabilities, _ = head.candidates(features, regions, [(32, 32)])
    for scores in (by_logits, by_probabilities):
        assert torch.allclose(scores.sum(1), torch.ones(1))
    assert not torch.allclose(by_logits, by_probabilities)


def test_one_box_for_all_classes_and_one_mask_branch() -> None:
    head = cascade("detectron2", shared_box=True, mask_stages=1, box_loss="l1")
    _, offsets = head.stages[0].box_predictor(torch.randn(2, 16))
    assert torch.equal(offsets[:, 4:8], offsets[:, 8:12])
    assert (offsets[:, :4] == 0).all()
    assert [stage.mask_head is None for stage in head.stages] == [False, True, True]
    losses = head.losses(maps(), [target()], [(32, 32)])
    assert {name for name in losses if "mask" in name} == {"loss_mask_1"}
    assert isinstance(head, RegionDetector)
    assert "masks" in head.eval().detect(maps(), [(32, 32)])[0]
