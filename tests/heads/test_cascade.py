"""Cascade Mask R-CNN equals mmdetection's with ViTAEv2's configuration, on vectors of its code."""

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from nasmvt.families.reference import rename
from nasmvt.heads.cascade import CascadeMaskRCNNHead
from nasmvt.heads.detector_names import MM_CASCADE, laid_out
from nasmvt.tasks.cascade import CascadeMaskRCNNConfig
from nasmvt.tasks.masks import paste_masks
from tests.families.reference import load_vectors

STRIDES = (4, 8, 16, 32, 64)
EVERY = 10**6


def close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def ordered(boxes: Tensor) -> Tensor:
    return boxes[np.lexsort(boxes.numpy().T.round(2))]


class Vectors:
    def __init__(self) -> None:
        content, self.tensors = load_vectors("heads_cascade")
        config = content["config"]
        self.classes, self.sizes = config["num_classes"], [tuple(size) for size in config["image_sizes"]]
        self.head = CascadeMaskRCNNHead(
            STRIDES,
            self.classes,
            width=config["channels"],
            box_hidden=config["fc_channels"],
            rpn_batch=EVERY,
            roi_batch=EVERY,
            pre_nms=(config["rpn_nms_pre"],) * 2,
            post_nms=(config["proposals"],) * 2,
            score_threshold=config["score_thr"],
            detections=config["max_per_img"],
        ).eval()
        state = {k.removeprefix("state."): v for k, v in self.tensors.items() if k.startswith("state.")}
        nn.ModuleDict({"head": self.head}).load_state_dict(laid_out(rename(state, MM_CASCADE)))
        self.maps = [self[f"input.p{level}"] for level in range(2, 7)]
        self.features = OrderedDict((str(i), m) for i, m in enumerate(self.maps))
        self.proposals = [self[f"output.proposals.{i}"][:, :4] for i in range(2)]
        self.targets = []
        for i, (height, width) in enumerate(self.sizes):
            packed = self[f"input.gt.{i}.masks_packed"].numpy()
            masks = torch.from_numpy(np.unpackbits(packed, axis=2)[:, :height, :width].copy()).bool()
            labels = self[f"input.gt.{i}.labels"].long()
            self.targets.append({"boxes": self[f"input.gt.{i}.boxes"], "labels": labels, "masks": masks})

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    return Vectors()


def background_last(logits: Tensor) -> Tensor:
    return logits.roll(-1, 1)


def test_the_proposals_and_their_losses_are_theirs(vectors: Vectors) -> None:
    rpn = vectors.head.rpn
    logits, offsets = rpn.head(vectors.maps)
    for level in (4, 5, 6):
        close(logits[level - 2], vectors[f"output.rpn.logits.p{level}"])
        close(offsets[level - 2], vectors[f"output.rpn.deltas.p{level}"])
    images = ImageList(vectors.maps[0], vectors.sizes)
    for i, boxes in enumerate(rpn(images, vectors.features)[0]):
        close(boxes, vectors.proposals[i])
    targets = [
        {**target, "size": torch.tensor(size)} for target, size in zip(vectors.targets, vectors.sizes, strict=True)
    ]
    anchors = rpn.anchor_generator(images, vectors.maps)
    labels, _ = rpn.assign_targets_to_anchors(anchors, targets)
    assert (torch.stack(labels) == 1).nonzero().equal(vectors["output.rpn.positive"].long())
    rpn.train()
    _, losses = rpn(images, vectors.features, targets)
    rpn.eval()
    close(losses["loss_objectness"], vectors["output.rpn.loss_rpn_cls"])
    close(losses["loss_rpn_box_reg"], vectors["output.rpn.loss_rpn_bbox"])


def test_the_stages_and_the_detections_are_theirs(vectors: Vectors) -> None:
    regions, head = vectors.proposals, vectors.head
    for number, stage in enumerate(head.stages):
        close(torch.cat(regions), vectors[f"output.test.stage{number}.rois"][:, 1:])
        logits, offsets = stage.boxes(vectors.features, regions, vectors.sizes)
        close(background_last(logits), vectors[f"output.test.stage{number}.logits"])
        close(offsets[:, 1:].flatten(1), vectors[f"output.test.stage{number}.deltas"])
        regions = stage.moved(regions, offsets, logits[:, 1:].argmax(1) + 1, vectors.sizes)
    scores, _ = head.candidates(vectors.features, vectors.proposals, vectors.sizes)
    close(background_last(scores), torch.cat([vectors[f"output.test.candidates.{i}.scores"] for i in range(2)]))
    for i, found in enumerate(head.detect(vectors.maps, vectors.sizes)):
        close(found["boxes"], vectors[f"output.test.detections.{i}.boxes"])
        close(found["scores"], vectors[f"output.test.detections.{i}.scores"])
        assert found["labels"].equal(vectors[f"output.test.detections.{i}.labels"].long())
        close(found["masks"], vectors[f"output.test.masks.{i}.probabilities"])
        pasted = paste_masks(found["masks"], found["boxes"], vectors.sizes[i])
        areas = pasted.flatten(1).sum(1)
        assert (areas - vectors[f"output.test.masks.{i}.pasted_area"]).abs().max() <= 2


def test_the_losses_of_every_stage_are_theirs(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    head = copy.deepcopy(vectors.head).train()  # BatchNorm will take in the regions
    given = [torch.cat((vectors.proposals[i], vectors[f"input.extra_proposals.{i}"])) for i in range(2)]
    monkeypatch.setattr(head.rpn, "forward", lambda images, features, targets: (given, {}))
    refined = []
    after = head._next
    monkeypatch.setattr(head, "_next", lambda *args: refined.append(after(*args)) or refined[-1])
    losses = head.losses(vectors.maps, vectors.targets, vectors.sizes)
    names = {"loss_classifier": "loss_cls", "loss_box_reg": "loss_bbox", "loss_mask": "loss_mask"}
    for stage in range(3):
        for ours, theirs in names.items():
            close(losses[f"{ours}_{stage + 1}"], vectors[f"output.train.s{stage}.{theirs}"].squeeze())
    for stage, regions in enumerate(refined):
        for i, boxes in enumerate(regions):
            close(ordered(boxes.detach()), ordered(vectors[f"output.train.stage{stage}.refined.{i}"]))


def test_stages_of_unequal_settings_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"'weights' and 'stds' of the stages must be equally many, but are 2, 3 and 3"
    ):
        CascadeMaskRCNNConfig(overlaps=(0.5, 0.6))
