"""Placements of training images against vectors of the released code, and boxes, masks and labels moved with them."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from nasmvt.config import parse
from nasmvt.data import IGNORE, DataConfig, Sample, TrainLoader, TrainTransform, open_dataset, photometric, placements
from nasmvt.data.geometry import Geometry
from nasmvt.data.masks import ObjectMasks
from nasmvt.data.placements import RandomCrop
from nasmvt.data.targets import TARGETS
from nasmvt.errors import UserError
from nasmvt.seeding import seeded
from nasmvt.tasks import TaskConfig

VECTORS = Path(os.environ.get("NASMVT_SHARED", "../shared")) / "parity" / "seg_augment.json"
DETR = {
    "type": "short_side",
    "shorts": [48, 64],
    "long": 100,
    "divisor": 32,
    "crop_shorts": [40],
    "crop_sides": [24, 36],
}


@pytest.fixture
def vectors() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    if not VECTORS.exists():
        pytest.skip(f"there is no {VECTORS}")
    return json.loads(VECTORS.read_text()), load_file(VECTORS.with_suffix(".safetensors"))


def config_of(train: dict[str, Any], **augmentation: Any) -> DataConfig:
    return parse(DataConfig, {"train": train, "augmentation": augmentation}, "x")


def test_photometric_distortion_is_opencvs_to_the_byte(vectors: Any) -> None:
    facts, tensors = vectors
    image = tensors["photo.image_rgb"].permute(2, 0, 1)
    for name, op in facts["photometric"]["ops"].items():
        result, kind = image, name.partition(".")[0]
        if "beta" in op:
            result = photometric.scaled(result, 1.0, op["beta"])
        if kind == "contrast" or name == "all.contrast_first":
            result = photometric.scaled(result, op.get("alpha", op.get("contrast")))
        if kind in ("saturation", "all"):
            result = photometric.saturated(result, op.get("alpha") if kind == "saturation" else op["saturation"])
        if kind in ("hue", "all"):
            result = photometric.turned(result, op.get("delta", op.get("hue")))
        if name == "all.contrast_last":
            result = photometric.scaled(result, op["contrast"])
        assert torch.equal(result.permute(1, 2, 0), tensors[f"photo.{name}"]), name


def test_crops_are_taken_and_drawn_anew_as_in_the_released_code(vectors: Any, monkeypatch: Any) -> None:
    facts, tensors = vectors
    label, targets = tensors["crop.label"], TARGETS.get("segmentation")

    def crop(top: int, left: int) -> Geometry:
        return Geometry(size=(20, 24), scaled=(20, 24), valid=(8, 8), top=top, left=left)

    for top, left, accepted in facts["crop"]["boxes_yx_accepted"]:
        assert targets.balanced(targets.move(label, crop(top, left)), 0.75) is accepted
    for name, loop in facts["crop"]["loops"].items():
        draws = iter([number for offsets in loop["offsets_yx"] for number in offsets])
        monkeypatch.setattr(placements, "_between", lambda least, most, draws=draws: next(draws))
        placement = RandomCrop(size=(8, 8), short=20, long=None, factor=(1.0, 1.0), most=0.75)
        geometry = placement.place((20, 24), lambda g, most: targets.balanced(targets.move(label, g), most))
        assert torch.equal(targets.move(label, geometry), tensors[f"crop.result.{name}"])
        assert next(draws, None) is None


@pytest.mark.parametrize("kind", ["detection", "segmentation"])
@pytest.mark.parametrize(
    "train", [DETR, {"type": "range_crop", "short": 64, "long": 128, "crop": [48, 56]}], ids=["detr", "range_crop"]
)
def test_image_boxes_masks_and_labels_move_together(kind: str, train: dict[str, Any]) -> None:
    """The labels are drawn into the image, and found there again after any placement."""
    config = parse(DataConfig, {"train": train, "mean": [0, 0, 0]}, "x")
    mask = torch.zeros(80, 120, dtype=torch.bool)
    mask[20:60, 30:90] = True
    picture = Image.fromarray((mask[..., None].expand(-1, -1, 3).numpy() * 255).astype(np.uint8))
    objects = {
        "boxes": torch.tensor([[30.0, 20.0, 90.0, 60.0]]),
        "labels": torch.tensor([0]),
        "crowd": torch.tensor([False]),
        "masks": ObjectMasks.of(mask[None]),
    }
    sample = Sample(id="x", image=picture, target=objects if kind == "detection" else mask.to(torch.uint8))
    targets, sizes = TARGETS.get(kind), set()
    for seed in range(12):
        with seeded("test", seed):
            placed = TrainTransform(config, targets)(sample)
        bright = placed.image[0] > 127
        sizes.add(placed.info.valid)
        found = placed.target["masks"].any(dim=0) if kind == "detection" else placed.target.bool()
        assert (bright ^ found).float().mean() < 0.06
        if kind == "detection" and len(placed.target["masks"]):
            boxes = placed.target["boxes"][0]
            assert placed.target["masks"][0].sum() == pytest.approx(float((boxes[2:] - boxes[:2]).prod()), rel=0.05)
    assert len(sizes) > 3


def test_a_batch_is_padded_to_its_largest_image() -> None:
    config = config_of({"type": "short_side", "shorts": [40, 60], "between": True, "divisor": 16})
    dataset = open_dataset(parse(DataConfig, {"image_size": [40, 60]}, "x"), "segmentation", "train", 0)
    batch = TrainLoader(dataset, range(6), config, 3, 0).batch(0)
    heights, widths = zip(*(info.valid for info in batch.infos), strict=True)
    assert len(set(heights)) > 1
    assert all(40 <= height <= 60 for height in heights)
    assert batch.images.shape[2:] == (-(-max(heights) // 16) * 16, -(-max(widths) // 16) * 16)
    for labels, info in zip(batch.targets, batch.infos, strict=True):
        assert (labels[: info.valid[0], : info.valid[1]] != IGNORE).all()
        assert (labels[info.valid[0] :] == IGNORE).all()


def test_detrs_variant_crops_half_of_the_images() -> None:
    placement = config_of({**DETR, "shorts": [64], "long": None}).train_placement
    geometries = [placement.place((80, 120)) for _ in range(200)]
    cropped = [g.before.valid for g in geometries if g.before is not None]
    assert 70 < len(cropped) < 130
    assert all(24 <= height <= 36 and 24 <= width <= 36 for height, width in cropped)
    assert all(min(g.valid) == 64 for g in geometries)


def test_distortion_changes_images_alone() -> None:
    sample = open_dataset(DataConfig(image_size=(48, 48)), "segmentation", "train", 0)[0]
    results = []
    for changes in ({}, {"photometric": True}):
        config = config_of({"type": "range_crop", "short": 48, "crop": 48, "factor": [1, 1]}, hflip=0, **changes)
        with seeded("test", 3):
            results.append(TrainTransform(config, TARGETS.get("segmentation"))(sample))
    assert torch.equal(results[0].target, results[1].target)
    assert not torch.equal(results[0].image, results[1].image)


@pytest.mark.parametrize(
    ("kind", "train", "sentence"),
    [
        (
            "classification",
            {"type": "range_crop"},
            "images of a classification task are placed by fit, but 'data.train",
        ),
        ("detection", {"type": "short_side"}, "'data.train.shorts' is missing"),
        ("detection", {"type": "short_sides"}, "unknown placement of training images 'short_sides'; did you mean"),
        ("segmentation", {"type": "range_crop", "factor": [2, 0.5]}, "least and the greatest factor"),
        ("detection", {"type": "short_side", "shorts": [32], "crop_sides": [600, 384]}, "exchange them"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(kind: str, train: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        parse(TaskConfig, {"kind": kind, "data": {"train": train}}, "x.yaml")
