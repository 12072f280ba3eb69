"""Time and memory to open data sets of real size: ImageNet's folders and COCO's annotation file.

    python benchmarks/open_data.py imagefolder     # 1,281,167 empty files in 1,000 folders
    python benchmarks/open_data.py coco            # 118,000 images, 860,000 objects with polygons; val with 5,000

The files are made in a temporary folder and deleted. `report` is what a training looks at before it begins, the reading
of val included. Memory is resident after the opening, and the sum of the proportional set sizes (Linux) of the process
and 4 loader workers that read 2,000 images at random places (empty files can't be read). `--scale 0.01` tries it with a
hundredth of the files.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from nasmvt.config import parse
from nasmvt.data import DataConfig, Dataset, EvalSet
from nasmvt.pipeline.data_report import report_data
from nasmvt.pipeline.datasets import TaskData
from nasmvt.tasks.config import TaskConfig

WORKERS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=["imagefolder", "coco"])
    parser.add_argument("--scale", type=float, default=1.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="open-data-") as folder:
        root, begun = Path(folder), time.perf_counter()
        {"imagefolder": make_folders, "coco": make_coco}[given.which](root, given.scale)
        print(f"made in {time.perf_counter() - begun:.1f} s")
        measure(DataConfig(format=given.which, root=root, workers=WORKERS))


def measure(config: DataConfig) -> None:
    kind = {"imagefolder": "classification", "coco": "detection"}[config.format]
    task = TaskData("task", parse(TaskConfig, {"kind": kind, "data": config}, "this benchmark"), 0)
    empty, watch = memory("Rss"), Watch()
    dataset = task.train
    print(f"{len(dataset):,} images opened in {watch}")
    print(f"resident: {memory('Rss'):.0f} MB, {empty:.0f} MB of it before; peak {peak():.0f} MB")
    watch = Watch()
    identity = dataset.identity()
    print(f"identity {identity.digest} in {watch}")
    watch = Watch()
    found = report_data({"task": task})["task"]
    looked = " and ".join(f"{split.looked_at} of {split.images:,}" for split in found.splits.values())
    print(f"report: {looked} images looked at, all labels counted in {watch}")
    if found.val is not None:
        watch = Watch()
        _ = TaskData("task", task.config, 0, dataset.info).val
        print(f"of which reading val's index: {watch}")
    if config.format == "coco":
        print(f"with {WORKERS} loader workers, proportional: {with_workers(dataset, config):.0f} MB")


class Watch:
    """The time since it was made; the processor's share of it does not depend on what else the machine does."""

    def __init__(self) -> None:
        self._begun = [now() for now in _CLOCKS]

    def __str__(self) -> str:
        wall, processor = (now() - then for now, then in zip(_CLOCKS, self._begun, strict=True))
        return f"{wall:.1f} s, {processor:.1f} s of them on the processor"


_CLOCKS = (time.perf_counter, time.process_time)


def with_workers(dataset: Dataset, config: DataConfig) -> float:
    """Return the most memory of this process and its loader workers while images are read."""
    chosen = np.random.default_rng(0).permutation(len(dataset))[:2000]
    most = 0.0
    for _ in EvalSet(dataset, chosen, config, 20):
        most = max(most, memory("Pss"))
    return max(most, memory("Pss"))


def memory(kind: str) -> float:
    """Return a kind of memory of this process and its children in MB."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    total = 0
    for process in [str(os.getpid()), *children]:
        rows = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        total += sum(int(row.split()[1]) for row in rows if row.startswith(f"{kind}:"))
    return total / 1024


def peak() -> float:
    """Return the highest resident memory of this process so far in MB."""
    rows = Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("VmHWM:")) / 1024


def make_folders(root: Path, scale: float) -> None:
    images = round(1_281_167 * scale)
    for label in range(1000):
        folder = root / f"train/n{label:08}"
        folder.mkdir(parents=True)
        for number in range(label, images, 1000):
            (folder / f"n{label:08}_{number}.JPEG").touch()


def make_coco(root: Path, scale: float) -> None:
    make_coco_split(root, "train", round(118_000 * scale), round(860_000 * scale))
    make_coco_split(root, "val", round(5_000 * scale), round(36_000 * scale))


def make_coco_split(root: Path, split: str, images: int, objects: int) -> None:
    folder = root / "images" / split
    folder.mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    names = [f"{number:012}.png" for number in range(images)]
    for start in range(0, images, 50_000):  # a file may have 65,000 links
        Image.new("RGB", (640, 480)).save(folder / names[start])
        for name in names[start + 1 : start + 50_000]:
            os.link(folder / names[start], folder / name)
    random = np.random.default_rng(0)
    records = [{"id": n, "file_name": name, "height": 480, "width": 640} for n, name in enumerate(names)]
    categories = [{"id": number, "name": f"class {number}"} for number in range(80)]
    with (root / f"annotations/instances_{split}.json").open("w") as file:
        file.write(f'{{"images": {json.dumps(records)}, "categories": {json.dumps(categories)}, "annotations": [')
        for number in range(objects):
            # COCO's polygons have about 25 corners each, written with two decimals.
            corners = (random.random(2 * int(random.integers(10, 41))) * 480).round(2).tolist()
            record = {
                "id": number,
                "image_id": int(random.integers(images)),
                "category_id": int(random.integers(80)),
                "bbox": (random.random(4) * 240).round(2).tolist(),
                "area": 1234.5,
                "iscrowd": 0,
                "segmentation": [corners],
            }
            file.write((", " if number else "") + json.dumps(record))
        file.write("]}")


if __name__ == "__main__":
    main()
