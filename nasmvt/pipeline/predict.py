"""Predictions of a finished model, drawn and as JSON."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nasmvt.data import UnreadableImage
from nasmvt.export.loading import LoadedModel, TaskModel
from nasmvt.files import atomic, write_json
from nasmvt.pipeline.evaluate import with_protocol
from nasmvt.pipeline.inputs import Picture, part_name
from nasmvt.precision import Precision
from nasmvt.tasks.draw import MIN_SCORE, draw_prediction

_log = logging.getLogger(__name__)


def predict(
    loaded: LoadedModel,
    pictures: Mapping[str, Iterable[Picture]],
    out: Path,
    *,
    skip_unreadable: bool = False,
    precision: Precision = "fp32",
    protocol: str | None = None,
    min_score: float = MIN_SCORE,
) -> Iterator[Path]:
    """Predict the images of each task and write the results; yield the path of each drawn image.

    `<out>/<task>/` gets, for every image, `<name>.png` with the prediction drawn, `<name>.json`, and for
    segmentation `<name>_labels.png` (the class index of every pixel; the JSON says its name). A kind whose data sets
    have a format for predictions also gets `results.json`, of all images.

    Images are placed as the model says, or by a protocol that is called by name (see `with_protocol`).
    Objects that score less than `min_score` are in the JSON but not drawn; if that is all of a task, a warning says so.

    Raises:
        UserError: if the model has no such task or protocol, or an image can't be read (and may not be skipped).
    """
    held = {task: loaded.task(task) for task in pictures}
    models = {name: TaskModel(model.network, with_protocol(model.task, protocol)) for name, model in held.items()}
    for task, model in models.items():
        chosen, records = list(pictures[task]), []
        best: list[float] = []
        names = {picture.name.casefold() for picture in chosen}
        for picture in chosen:
            try:
                image = picture.read()
            except UnreadableImage as error:
                if not skip_unreadable:
                    raise
                _log.warning("skipped: %s", error)
                continue
            prediction = model.predict([image], precision)[0]
            best += prediction.object_scores()[:1]
            drawn = out / task / f"{picture.name}.png"
            with atomic(drawn) as temporary:
                draw_prediction(image, prediction, min_score).save(temporary)
            record: dict[str, Any] = {"picture": picture.source, "task": task, **prediction.to_json()}
            for name, part in prediction.images().items():
                path = drawn.with_name(f"{part_name(picture.name, name, names)}.png")
                record[name] = path.name
                with atomic(path) as temporary:
                    part.save(temporary)
            write_json(drawn.with_name(f"{picture.name}.json"), record)
            records.append(record)
            yield drawn
        if best and max(best) < min_score:
            _log.warning(
                "task %r: no object scores %g or more, the best one %.2f, so none is drawn: lower --min-score",
                task,
                min_score,
                max(best),
            )
        if model.task.kind.results is not None:
            write_json(out / task / "results.json", model.task.kind.results(records, model.task.info))
