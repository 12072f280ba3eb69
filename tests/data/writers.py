"""Tiny data sets on disk."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_picture(path: Path, size: tuple[int, int] = (20, 30), value: int | None = None) -> Path:
    """Write an RGB image of `size` (height, width): noise of the path's name, or one grey level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(sum(path.name.encode()))
    pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    if value is not None:
        pixels[:] = value
    Image.fromarray(pixels).save(path)
    return path


def write_broken(path: Path) -> Path:
    """Write the first half of an image's bytes."""
    write_picture(path, (64, 64))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def write_labels(path: Path, labels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)
    return path


def annotation(identity: int, image_id: int, category_id: int, bbox: list[float], **more: Any) -> dict[str, Any]:
    return {
        "id": identity,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": bbox,
        "iscrowd": 0,
        **more,
    }


CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 2, "name": "cat"}]


def write_coco(root: Path, split: str, annotations: Any, pictures: int = 2, **replaced: Any) -> Path:
    """Write root/images/<split>/<n>.png of 20x30 pixels and their annotation file."""
    listed = [{"id": n, "file_name": f"{n}.png", "height": 20, "width": 30} for n in range(1, pictures + 1)]
    for image in listed:
        write_picture(root / "images" / split / str(image["file_name"]))
    content = {"images": listed, "annotations": annotations, "categories": CATEGORIES} | replaced
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path
