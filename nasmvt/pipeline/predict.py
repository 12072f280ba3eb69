"""What a finished model says of images, drawn and as JSON."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from nasmvt.data import UnreadableImage, read_picture
from nasmvt.data.folders import PICTURE_SUFFIXES, is_picture
from nasmvt.errors import UserError, listed
from nasmvt.export.loading import LoadedModel
from nasmvt.files import atomic, write_json
from nasmvt.pipeline.datasets import TaskData
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.draw import draw_prediction

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """An image to predict, read when its turn comes."""

    name: str
    """Names the files that are written."""
    source: str
    """Where it comes from: a path, or a data set's id."""
    read: Callable[[], Image.Image]


def find_pictures(paths: Iterable[Path]) -> list[Picture]:
    """Return the images that files and folders mean; folders are searched through and through.

    Raises:
        UserError: if a path does not exist, or there is no image at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found.extend(sorted(_pictures_below(path)))
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"there is no image or folder {path}: check the path")
    if not found:
        raise UserError(
            f"there is no image among the paths given; suffixes that count: {listed(sorted(PICTURE_SUFFIXES))}"
        )
    stems = Counter(path.stem for path in found)
    names = [path.stem if stems[path.stem] == 1 else _long_name(path) for path in found]
    return [
        Picture(name, str(path), lambda path=path: read_picture(path))  # type: ignore[misc]
        for name, path in zip(names, found, strict=True)
    ]


def _pictures_below(folder: Path) -> Iterator[Path]:
    """Yield the images below a folder; what is hidden, or lies in a hidden folder, is passed over."""
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and is_picture(path) and path.is_file():
            yield path


def _long_name(path: Path) -> str:
    return "-".join((*path.parent.parts, path.stem, path.suffix.removeprefix("."))).strip("/-")


def val_pictures(config: TaskConfig, count: int, seed: int) -> list[Picture]:
    """Return the first images of a task's val split."""
    val = TaskData("val", config, seed).val
    samples = [val[index] for index in range(min(count, len(val)))]
    return [
        Picture(f"val-{number:03d}", str(sample.id), lambda sample=sample: sample.image)  # type: ignore[misc]
        for number, sample in enumerate(samples)
    ]


def predict(
    loaded: LoadedModel, pictures: Mapping[str, Iterable[Picture]], out: Path, *, skip_unreadable: bool = False
) -> Iterator[Path]:
    """Predict the images of each task and write what comes out; yield each drawn image's path.

    Into `<out>/<task>/` go, for every image, `<name>.png` with the prediction drawn, `<name>.json`, and for
    segmentation `<name>_labels.png` (the class index of every pixel).

    Raises:
        UserError: if the model has no such task, or an image can't be read (and is not to be skipped).
    """
    models = {task: loaded.task(task) for task in pictures}
    for task, model in models.items():
        for picture in pictures[task]:
            try:
                image = picture.read()
            except UnreadableImage as error:
                if not skip_unreadable:
                    raise
                _log.warning("skipped: %s", error)
                continue
            prediction = model.predict([image])[0]
            drawn = out / task / f"{picture.name}.png"
            with atomic(drawn) as temporary:
                draw_prediction(image, prediction).save(temporary)
            record: dict[str, Any] = {"picture": picture.source, "task": task, **prediction.to_json()}
            for name, part in prediction.images().items():
                path = drawn.with_name(f"{picture.name}_{name}.png")
                record[name] = path.name
                with atomic(path) as temporary:
                    part.save(temporary)
            write_json(drawn.with_suffix(".json"), record)
            yield drawn
