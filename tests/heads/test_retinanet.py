"""RetinaNet equals detectron2's and mmdetection's, on vectors of their code."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nasmvt.data.types import DataInfo, ImageInfo
from nasmvt.families.reference import rename
from nasmvt.heads.boxes import BACKGROUND, IGNORED
from nasmvt.heads.detector_names import D2_RETINANET, MM_RETINANET
from nasmvt.heads.retinanet import RetinaNetHead
from nasmvt.tasks import HeadParts
from nasmvt.tasks.detection import DetectionNetwork
from nasmvt.tasks.retinanet import RetinaNetConfig, build
from tests.families.reference import load_vectors

NAMES = {"heads_retinanet_d2": D2_RETINANET, "heads_retinanet_mm": MM_RETINANET}


class Vectors:
    def __init__(self, name: str) -> None:
        content, self.tensors = load_vectors(name)
        self.config: dict[str, Any] = content["config"]
        self.d2 = name.endswith("d2")
        self.maps = [self.tensors[key] for key in sorted(self.tensors) if key.startswith("input.c")]
        strides = [4, 8, 16, 32][-len(self.maps) :]
        self.parts = self.build(strides, {})
        state = {k.removeprefix("state."): v for k, v in self.tensors.items() if k.startswith("state.")}
        self.network = nn.ModuleDict({"neck": self.parts.neck, "head": self.parts.head})
        missing = self.network.load_state_dict(rename(state, NAMES[name]), strict=False)
        assert missing.missing_keys == (["head.normalizer"] if self.d2 else [])
        assert missing.unexpected_keys == []
        self.pyramid = self.parts.neck(self.maps)
        self.sizes = [tuple(size) for size in self.config["image_sizes"]]
        self.targets = [
            {"boxes": self[f"input.gt.{i}.boxes"], "labels": self[f"input.gt.{i}.labels"].long()} for i in range(2)
        ]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def build(self, strides: list[int], changes: dict[str, Any]) -> HeadParts:
        config = RetinaNetConfig(
            width=self.config["fpn_channels"],
            convention="detectron2" if self.d2 else "mmdetection",
            pre_nms=self.config["topk" if self.d2 else "nms_pre"],
            detections=self.config["max_dets" if self.d2 else "max_per_img"],
            **changes,
        )
        info = DataInfo(kind="detection", classes=tuple(map(str, range(self.config["num_classes"]))))
        return build(self.config["in_channels"], strides, config, info)

    def strict(self) -> RetinaNetHead:
        head = self.build([4, 8, 16, 32][-len(self.maps) :], {"positive": 0.75, "negative": 0.6}).head
        assert isinstance(head, RetinaNetHead)
        return head


@pytest.fixture(scope="module", params=NAMES)
def vectors(request: pytest.FixtureRequest) -> Vectors:
    return Vectors(request.param)


def close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_the_pyramid_the_raw_outputs_and_the_anchors_are_theirs(vectors: Vectors) -> None:
    logits, offsets = vectors.parts.head(vectors.pyramid)
    for level, map_BCHW in enumerate(vectors.pyramid, start=3):
        close(map_BCHW, vectors[f"output.fpn.p{level}"])
    for ours, name, size in ((logits, "logits", vectors.config["num_classes"]), (offsets, "deltas", 4)):
        theirs = [
            vectors[f"output.{name}.p{level}"].unflatten(1, (-1, size)).permute(0, 3, 4, 1, 2).flatten(1, 3)
            for level in range(3, 8)
        ]
        close(ours, torch.cat(theirs, dim=1))
    close(torch.cat(vectors.parts.head.anchors.levels(vectors.pyramid)), vectors["output.anchors"])


@pytest.mark.parametrize("strict", [False, True])
def test_anchors_are_matched_as_theirs(vectors: Vectors, strict: bool) -> None:
    head = vectors.strict() if strict else vectors.parts.head
    name = "strict" if strict else "train"
    anchors = torch.cat(head.anchors.levels(vectors.pyramid))
    matches = torch.stack(head.match(anchors, vectors.targets, vectors.sizes))
    labels = torch.stack([t["labels"][m.clamp(min=0)] for t, m in zip(vectors.targets, matches, strict=True)])
    labels = labels.where(matches > BACKGROUND, vectors.config["num_classes"])
    assert (matches > BACKGROUND).nonzero().equal(vectors[f"output.{name}.positive"].long())
    boxes = torch.cat([t["boxes"][m[m > BACKGROUND]] for t, m in zip(vectors.targets, matches, strict=True)])
    if vectors.d2:
        assert labels.where(matches != IGNORED, -1).equal(vectors[f"output.{name}.labels"].long())
        assert boxes.equal(vectors[f"output.{name}.positive_gt"])
    else:
        assert labels.equal(vectors[f"output.{name}.labels"].long())
        assert (matches != IGNORED).float().equal(vectors[f"output.{name}.label_weights"])
        own = anchors[(matches > BACKGROUND).nonzero()[:, 1]]
        close(head.coder.encode_single(boxes, own), vectors[f"output.{name}.positive_targets"])


def test_the_losses_are_theirs(vectors: Vectors) -> None:
    head = vectors.parts.head
    for step in (1, 2) if vectors.d2 else (0,):
        losses = head.losses(vectors.pyramid, vectors.targets, vectors.sizes)
        prefix = f"output.train.step{step}" if vectors.d2 else "output.train"
        close(losses["loss_classifier"], vectors[f"{prefix}.loss_cls"])
        close(losses["loss_box_reg"], vectors[f"{prefix}.loss_{'box_reg' if vectors.d2 else 'bbox'}"])
        if vectors.d2:
            close(head.normalizer, vectors[f"{prefix}.normalizer"])


def test_offsets_are_decoded_as_theirs(vectors: Vectors) -> None:
    boxes = vectors.parts.head.coder.decode_single(vectors["input.shrink.deltas"], vectors["input.shrink.anchors"])
    close(boxes, vectors["output.shrink.boxes"])


class GivesMaps(nn.Module):
    def __init__(self, maps: list[Tensor]) -> None:
        super().__init__()
        self.given = maps

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.given


def test_the_detections_are_theirs_in_pixels_of_the_original_images(vectors: Vectors) -> None:
    classes = [str(i) for i in range(vectors.config["num_classes"])]
    network = DetectionNetwork(GivesMaps(vectors.maps), vectors.parts, classes=classes, mean=(0.0,) * 3, std=(1.0,) * 3)
    originals = [tuple(size) for size in vectors.config["original_sizes"]]
    infos = [ImageInfo(id=i, size=originals[i], valid=vectors.sizes[i]) for i in range(2)]
    height, width = vectors.config["batch_size_hw"]
    for i, found in enumerate(network.predict(torch.zeros(2, 3, height, width), infos)):
        assert found.labels.equal(vectors[f"output.detections.{i}.labels"].long())
        close(found.scores, vectors[f"output.detections.{i}.scores"])
        close(found.boxes, vectors[f"output.{'detections' if vectors.d2 else 'rescaled'}.{i}.boxes"])


def test_thresholds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"below 'negative', at most 'positive' \(0.3\), but 'negative' is 0.4"):
        RetinaNetConfig(positive=0.3)
