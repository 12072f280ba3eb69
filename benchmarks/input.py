"""Training images per second against torchvision's loaders: the same files, workers and transforms, in one run.

    python benchmarks/input.py --photos /data/photos      # a folder of JPEG files
    python benchmarks/input.py --photos /data/photos --workers 4 --rounds 9

Classification: photos of 500 x 375 pixels, RandomResizedCrop to 224 and a flip. Detection: photos of 640 x 480 pixels
with seven boxes, shorter side 800, a flip. torchvision's side is `ImageFolder` or `CocoDetection` with its transforms
in `torch.utils.data.DataLoader`. Normalising is left out on both sides: here it is the network's work, on the device.
Loaders take turns, each after what it has prepared ahead was taken; the figure is the median of the rounds' ratios.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import CocoDetection, ImageFolder, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

from nasmvt.data import DataConfig, TrainLoader, open_dataset

IMAGES, BOXES = 128, 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=0, help="0: the process itself prepares the batches")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    photos = sorted(path for path in given.photos.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    with tempfile.TemporaryDirectory(prefix="input-") as folder:
        for name, make, batch, batches in (("classification", folders, 32, 2), ("detection", coco, 4, 4)):
            root = Path(folder) / name
            compare(name, make(root, photos, batch, given.workers), batch, batches, given.rounds, 3 * given.workers)


def compare(name: str, streams: dict[str, Iterator[Any]], batch: int, batches: int, rounds: int, ahead: int) -> None:
    """Print images per second of two streams of batches that take turns."""
    speeds: dict[str, list[float]] = {side: [] for side in streams}
    for _ in range(rounds + 1):  # the first warms up
        for side, stream in streams.items():
            for _ in islice(stream, ahead):
                pass
            begun = time.perf_counter()
            for _ in islice(stream, batches):
                pass
            speeds[side].append(batch * batches / (time.perf_counter() - begun))
    own, other = (found[1:] for found in speeds.values())
    ratios = [a / b for a, b in zip(own, other, strict=True)]
    low, high = min(ratios), max(ratios)
    print(f"{name}: {statistics.median(own):.1f} images/s, torchvision {statistics.median(other):.1f}", end="; ")
    print(f"ratio {statistics.median(ratios):.3f} ({low:.3f} to {high:.3f}, {rounds} rounds)", flush=True)


def folders(root: Path, photos: list[Path], batch: int, workers: int) -> dict[str, Iterator[Any]]:
    """Return the streams of classification."""
    for number, image in enumerate(resized(photos, (500, 375))):
        path = root / "train" / f"class{number % 4}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=90)
    plain = {"auto_augment": None, "erasing": 0, "mixup": 0, "cutmix": 0, "hflip": 0.5}
    values = {"format": "imagefolder", "root": root, "image_size": 224, "augmentation": plain, "workers": workers}
    transform = v2.Compose([v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    files = ImageFolder(str(root / "train"), transform)
    return {"ours": ours(values, "classification", batch), "theirs": theirs(files, batch, workers, None)}


def coco(root: Path, photos: list[Path], batch: int, workers: int) -> dict[str, Iterator[Any]]:
    """Return the streams of detection."""
    rng, images, objects = np.random.default_rng(0), [], []
    (root / "train").mkdir(parents=True)
    (root / "annotations").mkdir()
    for number, image in enumerate(resized(photos, (640, 480))):
        image.save(root / "train" / f"{number}.jpg", quality=90)
        images.append({"id": number, "file_name": f"{number}.jpg", "width": 640, "height": 480})
        for x, y, width, height in rng.integers((0, 0, 20, 20), (400, 300, 240, 180), (BOXES, 4)).tolist():
            box = {"bbox": [x, y, width, height], "area": width * height, "iscrowd": 0, "category_id": 1}
            objects.append({"id": len(objects) + 1, "image_id": number, **box})
    path = root / "annotations" / "instances_train.json"
    path.write_text(json.dumps({"images": images, "annotations": objects, "categories": [{"id": 1, "name": "it"}]}))
    values = {
        "format": "coco",
        "root": root,
        "masks": False,
        "workers": workers,
        "split": 0.1,
        "train": {"type": "short_side", "shorts": [800], "antialias": True},
    }
    transform = v2.Compose(
        [v2.RandomShortestSize([800], 1333, antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    )
    files = wrap_dataset_for_transforms_v2(
        CocoDetection(str(root / "train"), str(path), transforms=transform), target_keys=("boxes", "labels")
    )
    return {"ours": ours(values, "detection", batch), "theirs": theirs(files, batch, workers, stacked)}


def stacked(samples: list[Any]) -> tuple[torch.Tensor, list[Any]]:
    """Return images, which are of one size here, as one tensor, and their targets."""
    images, targets = zip(*samples, strict=True)
    return torch.stack(images), list(targets)


def ours(values: dict[str, Any], kind: str, batch: int) -> Iterator[Any]:
    config = DataConfig(**values)
    dataset = open_dataset(config, kind, "train", 0)
    return TrainLoader(dataset, range(len(dataset)), config, batch, 0).batches()


def theirs(files: Any, batch: int, workers: int, collate: Any) -> Iterator[Any]:
    kept = workers > 0
    loader = DataLoader(files, batch, shuffle=True, num_workers=workers, persistent_workers=kept, collate_fn=collate)
    while True:
        yield from loader


def resized(photos: list[Path], size: tuple[int, int]) -> Iterator[Image.Image]:
    """Yield photos of a size (width, height), as many as the benchmark has."""
    for path in islice(cycle(photos), IMAGES):
        with Image.open(path) as image:
            yield image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


if __name__ == "__main__":
    main()
