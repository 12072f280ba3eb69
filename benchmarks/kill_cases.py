"""What `kill_matrix.py` interrupts: commands of the main job, when, and what they must leave in the end."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from fuzz import relocate, run
from PIL import Image

TRAIN_IMAGES, VAL_IMAGES = 24, 12
_STEPS = 12
_EVALUATED = 6
"""The step after which the training is evaluated for the first time."""

SPACE = {
    "name": "tiny",
    "family": "vit_mvt",
    "choices": {
        "depth": [4, 5],
        "embed_dim": [16, 24],
        "num_heads": {"options": [1, 2], "per": "depth"},
        "mlp_ratio": {"options": [1, 2], "per": "depth"},
    },
    "fixed": {"head_dim": 8, "patch_size": 8, "stem_width": 8, "window_size": 4, "drop_path": 0.0},
}


def write_experiment(folder: Path, workers: int) -> None:
    """Write `mine.yaml` and the data of its first task; those of the second are drawn.

    Args:
        folder: where; it is made.
        workers: loader workers of each task.
    """
    for split, count in (("train", TRAIN_IMAGES), ("val", VAL_IMAGES)):
        for number in range(count):
            path = folder / "data" / split / ("cat", "dog")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    common = {"image_size": 32, "search_fraction": 0.25, "workers": workers}
    shapes = {**common, "train_images": TRAIN_IMAGES, "val_images": 4 * VAL_IMAGES}
    files = {**common, "format": "imagefolder", "root": "data"}
    head = {"channels": 16, "strides": [4, 8, 8, 16], "pool_scales": [1, 2], "aux_channels": 8}
    training = {"steps": _STEPS, "warmup_steps": 2, "checkpoint_every": 4, "evaluate_every": _EVALUATED, "log_every": 1}
    search = {"population": 4, "parents": 2, "generations": 2, "mutants": 2, "crossovers": 2, "workers": 0}
    experiment = {
        "space": SPACE,
        "tasks": {
            "cls": {"kind": "classification", "data": files, "batch_size": 4},
            "seg": {"kind": "segmentation", "data": shapes, "batch_size": 2, "head": head},
        },
        "training": {**training, "recalibration_images": 16},
        "retrain": {**training, "recalibration_images": 16},
        "search": {**search, "recalibration_images": 16},
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False))


STEPS = ("train-supernet mine.yaml --out run", "search run", "retrain run", "export run")
"""The main job; a base is a folder after some of these."""


class Bases:
    """Folders after so many steps of the main job, made when they are first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, steps: int, workers: int) -> Path:
        """Return a folder after the first `steps` of `STEPS`."""
        folder = self._folder / f"base-{steps}-{workers}"
        if not folder.exists() and not steps:
            write_experiment(folder, workers)
        elif not folder.exists():
            copy(self.of(steps - 1, workers), folder)
            outcome = run(tuple(STEPS[steps - 1].split()), folder)
            if outcome.code != 0:
                raise SystemExit(f"'{STEPS[steps - 1]}' must work:\n{outcome.output}")
        return folder


def copy(base: Path, folder: Path) -> None:
    """Copy a folder, with images that nobody has read yet."""
    shutil.copytree(base, folder, symlinks=True)
    relocate(base, folder)
    for path in folder.glob("data/*/*/*"):
        os.utime(path, (0, path.stat().st_mtime))


Moment = Callable[[Path], bool]


@dataclass(frozen=True)
class Activity:
    """A command, when it is interrupted, how one goes on, and what counts of what it leaves."""

    command: str
    again: str
    """Goes on."""
    base: int
    """How many steps of the main job come before."""
    moment: Moment
    """Says, of the folder, that it is time."""
    results: str
    """The files that count: a pattern below the folder."""
    sentence: str = r"interrupted after step \d+: .* is written; to go on, pass --resume .*"
    """What is said of signals."""
    workers: tuple[int, ...] = (0, 2)
    """Numbers of loader workers with which it is tried."""


def lines(path: str, count: int) -> Moment:
    """A file has so many lines."""
    return lambda folder: (folder / path).is_file() and (folder / path).read_bytes().count(b"\n") >= count


def exists(pattern: str) -> Moment:
    """A file exists."""
    return lambda folder: any(folder.glob(pattern))


def images_read(split: str, count: int) -> Moment:
    """So many images were read (their access time says so, unless the file system is mounted noatime)."""
    return lambda folder: sum(path.stat().st_atime > 0 for path in folder.glob(f"data/{split}/*/*")) >= count


def evaluating(folder_of_training: str) -> Moment:
    """The first evaluation of a training has begun: its checkpoint is written before, its figures after it."""
    checkpoint, figures = f"{folder_of_training}/checkpoint.1.pt", f"{folder_of_training}/metrics.jsonl"
    return lambda folder: (
        (folder / checkpoint).is_file() and lines(figures, _EVALUATED)(folder) and not lines(figures, 7)(folder)
    )


_TRAIN, _RETRAIN = "train-supernet mine.yaml --out run", "retrain run --arch smallest"
_AGAIN = r"interrupted: what was finished is kept; run the same command again to go on"
_SMALLEST = "run/retrain/smallest"
_EXPORT = "export run --arch smallest --out out"

ACTIVITIES = {
    "training": Activity(
        _TRAIN, "train-supernet --resume --out run", 0, lines("run/supernet/metrics.jsonl", 3), "run/supernet/*"
    ),
    "evaluation in training": Activity(
        _TRAIN, "train-supernet --resume --out run", 0, evaluating("run/supernet"), "run/supernet/*"
    ),
    "retraining": Activity(
        _RETRAIN, f"{_RETRAIN} --resume", 1, lines(f"{_SMALLEST}/metrics.jsonl", 3), f"{_SMALLEST}/*"
    ),
    "search": Activity("search run", "search run", 1, lines("run/search/journal.jsonl", 4), "run/search/*", _AGAIN),
    "search with Ray": Activity(
        *("search run --workers 1", "search run --workers 1", 1),
        lines("run/search/journal.jsonl", 4),
        *("run/search/*", _AGAIN, (0,)),
    ),
    "export, measuring": Activity(_EXPORT, _EXPORT, 1, images_read("train", 12), "out/*", _AGAIN),
    "export, writing": Activity("export run --out out", "export run --out out", 3, exists(".out.*"), "out/*", _AGAIN),
    "evaluate": Activity(
        *("evaluate run/export", "evaluate run/export", 4),
        images_read("val", VAL_IMAGES),
        *("run/export/*", _AGAIN),
    ),
}


def results(folder: Path, pattern: str) -> dict[str, Any]:
    """Return the content of the files that count, without clock times."""
    found = {}
    for path in sorted(folder.glob(pattern)):
        if path.suffix in _READERS and not re.fullmatch(r"checkpoint\..+\.pt", path.name):
            found[str(path.relative_to(folder))] = _READERS[path.suffix](path)
    return found


def _checkpoint(path: Path) -> Any:
    return torch.load(path, weights_only=True)


_TIMES = {"steps_per_second", "seconds", "data_share"}


def _json_lines(path: Path) -> list[Any]:
    entries = [json.loads(line) for line in path.read_bytes().splitlines()]
    timeless = [{key: entry[key] for key in entry.keys() - _TIMES} for entry in entries]
    return sorted(timeless, key=lambda entry: json.dumps(entry, sort_keys=True))


_READERS: dict[str, Callable[[Path], Any]] = {
    ".pt": _checkpoint,
    ".jsonl": _json_lines,
    **dict.fromkeys((".yaml", ".csv", ".json", ".safetensors"), Path.read_bytes),
}


def differences(ours: Any, theirs: Any, where: str = "") -> Iterator[str]:
    """Yield the places where two values are not the same, bit for bit."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in ours.keys() | theirs.keys():
            yield from differences(ours.get(key), theirs.get(key), f"{where} {key}".strip())
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(one, other, f"{where} {number}".strip())
    elif not (torch.equal(ours, theirs) if torch.is_tensor(ours) and torch.is_tensor(theirs) else ours == theirs):
        yield where
