"""Panoptic quality of photographs against the COCO evaluation: Penn-Fudan's pedestrians, on ground that is stuff."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nasmvt.config import parse
from nasmvt.data import DataConfig, EvalSet, open_dataset
from nasmvt.tasks.evaluate import evaluate
from tests.families.reference import SHARED
from tests.tasks.test_every_head_on_images import build

CATEGORIES = [{"id": 1, "name": "person", "isthing": 1}, {"id": 7, "name": "ground", "isthing": 0}]
IMAGES = 9


def coloured(ids: np.ndarray) -> Image.Image:
    return Image.fromarray(np.stack((ids, ids >> 8, ids >> 16), axis=-1).astype(np.uint8))


def segments(ids: np.ndarray, categories: dict[int, int]) -> list[dict[str, Any]]:
    """The segments of a map; where one person hides another, nothing is left of a segment."""
    areas = {id: int((ids == id).sum()) for id in categories}
    return [
        {"id": id, "category_id": category, "area": areas[id], "iscrowd": 0}
        for id, category in categories.items()
        if areas[id]
    ]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = SHARED / "data" / "det_pennfudan"
    if not source.is_dir():
        pytest.skip(f"there is no {source}: set NASMVT_SHARED")
    people = open_dataset(parse(DataConfig, {"format": "coco", "root": source}, "the test"), "detection", "val", 0)
    root = tmp_path_factory.mktemp("pennfudan")
    maps = root / "annotations" / "panoptic_val"
    maps.mkdir(parents=True)
    (root / "images").mkdir()
    images, annotations = [], []
    for number in range(IMAGES):
        sample = people[number]
        masks = sample.target["masks"].numpy()
        ids = np.full(masks.shape[1:], 300)
        for place, mask in enumerate(masks):
            ids[mask.astype(bool)] = 1000 * (place + 1)
        sample.image.save(root / "images" / f"{number}.png")
        coloured(ids).save(maps / f"{number}.png")
        categories = {300: 7, **{1000 * (place + 1): 1 for place in range(len(masks))}}
        images.append({"id": number, "file_name": f"{number}.png", "height": ids.shape[0], "width": ids.shape[1]})
        record = {"image_id": number, "file_name": f"{number}.png", "segments_info": segments(ids, categories)}
        annotations.append(record)
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (root / "annotations" / "panoptic_val.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("divisor", [1, 32])
def test_quality_is_that_of_hotcoco_whatever_the_batches(root: Path, tmp_path: Path, divisor: int) -> None:
    panoptic = pytest.importorskip("hotcoco.panoptic")
    task, network = build("panoptic", ("person", "ground"), divisor, least_stuff=0)
    config = task.config.data.model_copy(update={"format": "coco_panoptic", "root": root})
    dataset = open_dataset(config, "panoptic", "val", 0)
    figures = []
    for number in (1, 7):
        images = EvalSet(dataset, range(IMAGES), config, number)
        figures.append(evaluate(network, images, task, "cpu"))
        written = tmp_path / str(number)
        written.mkdir()
        found = [prediction for batch in images for prediction in network.predict(batch.images, batch.infos)]
        annotations = []
        for image, prediction in enumerate(found):
            prediction.images()["panoptic"].save(written / f"{image}.png")
            info = [
                {**segment, "category_id": CATEGORIES[segment["label"]]["id"]}
                for segment in prediction.to_json()["segments_info"]
            ]
            annotations.append({"image_id": image, "file_name": f"{image}.png", "segments_info": info})
        content = {"images": [{"id": image} for image in range(IMAGES)], "annotations": annotations}
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps({**content, "categories": CATEGORIES}))
        truth = root / "annotations" / "panoptic_val.json"
        result = panoptic.pq_compute(str(truth), str(file), str(truth.with_suffix("")), str(written))
        for part, suffix in (("All", ""), ("Things", "_things"), ("Stuff", "_stuff")):
            for key in ("pq", "sq", "rq"):
                assert figures[-1][key + suffix] == pytest.approx(100 * result[part][key], abs=1e-12)
    assert figures[0] == pytest.approx(figures[1], abs=1e-6)
    assert any(figures[0].values())
