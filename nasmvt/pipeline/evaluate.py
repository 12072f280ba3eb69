"""What a finished model is worth on pictures it never saw, and what it says of any picture."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from nasmvt.config import parse
from nasmvt.data import read_picture
from nasmvt.errors import UserError, listed
from nasmvt.export.loading import LoadedModel
from nasmvt.files import atomic, write_json
from nasmvt.model import MultiTaskModel
from nasmvt.pipeline.datasets import TaskData
from nasmvt.pipeline.experiment import apply_change
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.draw import draw_prediction
from nasmvt.tasks.evaluate import evaluate
from nasmvt.tasks.segmentation import SegmentationPrediction

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"}


def evaluate_on_val(
    model: MultiTaskModel, configs: Mapping[str, TaskConfig], seed: int, device: torch.device
) -> dict[str, dict[str, float]]:
    """Return the metrics of every task on the `val` split of its data set, in percent.

    Raises:
        UserError: if a data set is missing or has other classes than the model.
    """
    model.to(device)
    found = {}
    for name, task in model.tasks.items():
        data = TaskData(name, configs[name], seed)
        if data.val.info.classes != task.info.classes:
            raise UserError(
                f"the val split of task {name!r} has the classes {listed(data.val.info.classes)}, but the model was "
                f"trained for {listed(task.info.classes)}: give the data set it was made for"
            )
        found[name] = evaluate(model.task(name), data.val_batches(), task, device)
    return found


def data_configs(loaded: LoadedModel, changes: Sequence[str]) -> dict[str, TaskConfig]:
    """Return the task settings of a loaded model with changes such as "tasks.det.data.root=/data/coco".

    Raises:
        UserError: if a change breaks a rule.
    """
    values = {"tasks": {name: task["config"] for name, task in loaded.config["tasks"].items()}}
    for change in changes:
        apply_change(values, change)
    unknown = set(values) - {"tasks"} | set(values["tasks"]) - set(loaded.tasks)
    if unknown:
        raise UserError(f"--set changes keys below tasks.<name> (tasks: {listed(loaded.tasks)}), not {listed(unknown)}")
    return {name: parse(TaskConfig, config, f"--set tasks.{name}") for name, config in values["tasks"].items()}


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """Return the pictures that files and folders mean; folders are searched through and through.

    Raises:
        UserError: if a path does not exist, or there is no picture at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found.extend(sorted(file for file in path.rglob("*") if file.suffix.lower() in PICTURES))
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"there is no picture or folder {path}: check the path")
    if not found:
        raise UserError(f"there is no picture among the paths given; suffixes that count: {listed(sorted(PICTURES))}")
    return found


def predict(loaded: LoadedModel, tasks: Sequence[str], pictures: Sequence[Path], out: Path) -> Iterator[Path]:
    """Predict pictures and write what comes out; yield each drawn picture's path.

    Into `<out>/<task>/` go, for every picture, `<name>.png` with the prediction drawn, `<name>.json`, and for
    segmentation `<name>_labels.png` (the class index of every pixel). Pictures of one name are numbered.

    Raises:
        UserError: if the model has no such task, or a picture can't be read.
    """
    models = {name: loaded.task(name) for name in tasks}
    names = _distinct_names(pictures)
    for path, name in zip(pictures, names, strict=True):
        picture = read_picture(path)
        for task, model in models.items():
            prediction = model.predict([picture])[0]
            drawn = out / task / f"{name}.png"
            with atomic(drawn) as temporary:
                draw_prediction(picture, prediction, model.task.info).save(temporary)
            record: dict[str, Any] = {"picture": str(path), "task": task, **prediction.to_json()}
            if isinstance(prediction, SegmentationPrediction):
                labels = drawn.with_name(f"{name}_labels.png")
                record["labels"] = labels.name
                with atomic(labels) as temporary:
                    Image.fromarray(prediction.labels.cpu().numpy()).save(temporary)
            write_json(drawn.with_suffix(".json"), record)
            yield drawn


def _distinct_names(pictures: Sequence[Path]) -> list[str]:
    seen: dict[str, int] = {}
    names = []
    for path in pictures:
        count = seen[path.stem] = seen.get(path.stem, 0) + 1
        names.append(path.stem if count == 1 else f"{path.stem}-{count}")
    return names
