"""Placements of test images: sizes and resizing of the released code, crops, settings that are refused."""

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
from nasmvt.data import DataConfig, EvalSet, EvalTransform, open_dataset
from nasmvt.data.geometry import OPENCV, Geometry
from nasmvt.data.protocols import KeepRatioProtocol
from nasmvt.errors import UserError
from nasmvt.tasks import TaskConfig

VECTORS = Path(os.environ.get("NASMVT_SHARED", "../shared")) / "parity" / "seg_augment.json"
ADE20K = {"type": "keep_ratio", "short": 512, "long": 2048}


def sizes_of(test: dict[str, Any], ratio: float, rows: list[list[int]]) -> list[list[int]]:
    (placement,) = parse(DataConfig, {"test": {**test, "ratios": [ratio]}}, "x").test_placements
    return [[h, w, *placement.place((h, w)).valid] for h, w, *_ in rows]


@pytest.mark.parametrize(
    ("name", "test"),
    [
        ("rescale_2048_512", ADE20K),
        ("multi_scale_2048_512", ADE20K),
        ("rescale_1333_800", {"type": "keep_ratio", "short": 800, "long": 1333}),
        ("aligned_2048_512_div32", {**ADE20K, "divisor": 32, "stretch": True}),
        ("aligned_multi_scale", {**ADE20K, "divisor": 32, "stretch": True}),
        ("min_size_512", {**ADE20K, "least_short": 512}),
        ("min_size_512_multi_scale", {**ADE20K, "least_short": 512}),
    ],
)
def test_sizes_are_those_of_the_released_code(name: str, test: dict[str, Any]) -> None:
    if not VECTORS.exists():
        pytest.skip(f"there is no {VECTORS}")
    table = json.loads(VECTORS.read_text())["geometry"][name]
    for ratio, rows in (table if isinstance(table, dict) else {"1": table}).items():
        assert sizes_of(test, float(ratio), rows) == rows


@pytest.mark.parametrize(
    ("size", "short", "long", "expected"),
    [((480, 640), 800, 1333, (800, 1066)), ((427, 640), 800, 1333, (800, 1199)), ((640, 300), 800, 1333, (1333, 625)),
     ((500, 333), 480, 1333, (720, 480)), ((7, 7), 480, None, (480, 480))],
)  # fmt: skip
def test_sizes_of_detr_are_rounded_down(size: Any, short: int, long: int | None, expected: Any) -> None:
    """As `get_size_with_aspect_ratio` of the released code says."""
    protocol = parse(KeepRatioProtocol, {"short": short, "long": long, "truncate": True}, "x")
    assert protocol.single((16, 16)).place(size).scaled == expected


def test_resizing_is_opencvs_to_within_a_grey_level() -> None:
    if not VECTORS.exists():
        pytest.skip(f"there is no {VECTORS}")
    vectors = load_file(VECTORS.with_suffix(".safetensors"))
    image, labels = vectors["photo.image_rgb"].permute(2, 0, 1), vectors["resize.label"]
    for way in ("up", "down"):
        expected = vectors[f"resize.image.{way}"].permute(2, 0, 1)
        size = (expected.shape[1], expected.shape[2])
        geometry = Geometry(size=(13, 10), scaled=size, valid=size, resampling=OPENCV)
        assert (geometry.image(image).int() - expected.int()).abs().max() <= 1
        assert torch.equal(geometry.masks(labels[None])[0], vectors[f"resize.label.{way}"])


def test_a_centre_crop_is_the_middle_of_the_scaled_image() -> None:
    """Published: 224 of 256 pixels (ratio 0.875), of 233 for 0.96. By hand: 512 x 640 becomes 256 x 320."""
    transform = EvalTransform(parse(DataConfig, {"image_size": 224, "test": {"type": "centre_crop"}}, "x"))
    geometry = transform.placement.place((512, 640))
    assert (geometry.scaled, geometry.valid, geometry.top, geometry.left) == ((256, 320), (224, 224), 16, 48)
    lvt = parse(DataConfig, {"image_size": 224, "test": {"type": "centre_crop", "ratio": 0.96}}, "x")
    assert lvt.test_placement.place((333, 500)).scaled == (233, 349)

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    cropped, info = transform(picture)
    resized = np.asarray(picture.resize((341, 256), Image.Resampling.BICUBIC)).astype(int)
    assert info.valid == (224, 224)
    assert np.abs(cropped.permute(1, 2, 0).numpy() - resized[16:240, 58:282]).max() <= 1


def test_views_of_an_image_come_together_with_one_target() -> None:
    values = {"image_size": 48, "test": {"type": "keep_ratio", "short": 32, "ratios": [0.5, 1], "flip": True}}
    config = parse(DataConfig, values, "x")
    dataset = open_dataset(parse(DataConfig, {"image_size": [40, 60]}, "x"), "segmentation", "val", 0)
    (batch,) = EvalSet(dataset, range(2), config, batch_size=4)
    assert batch.images.shape == (8, 3, 32, 48)
    assert [info.valid for info in batch.infos] == [(16, 24), (16, 24), (32, 48), (32, 48)] * 2
    assert [info.flip for info in batch.infos] == [False, True] * 4
    assert len(batch.targets) == 2
    assert torch.equal(batch.images[3], batch.images[2].flip(2))
    (single,) = EvalSet(dataset, [0], config, batch_size=1, on_canvas=True)
    assert (single.images.shape, single.targets.shape) == ((1, 3, 32, 48), (1, 32, 48))


@pytest.mark.parametrize(
    ("kind", "test", "sentence"),
    [
        ("detection", {"type": "centre_crop"}, "images of a detection task are placed by fit, keep_ratio, but"),
        (
            "detection",
            {"type": "keep_ratio", "short": 32, "flip": True},
            "a detection task reads an image whole and once",
        ),
        ("segmentation", {"type": "keep_ration", "short": 32}, "unknown placement of test images 'keep_ration'; did"),
        ("segmentation", {"type": "keep_ratio", "short": 32, "slide": 32}, "set both 'slide' and 'stride'"),
        ("segmentation", {"type": "keep_ratio", "short": 32, "slide": 32, "stride": 40}, "set 'stride' to no more"),
        ("segmentation", {"type": "keep_ratio", "short": 64, "long": 32}, "raise 'long' or lower 'short'"),
        ("segmentation", {"short": 64}, "unknown key 'data.test.short'"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(kind: str, test: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        parse(TaskConfig, {"kind": kind, "data": {"test": test}}, "x.yaml")
