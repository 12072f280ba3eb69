import numpy as np
import pytest
import torch
from PIL import Image

from nasmvt.data.types import IGNORE, Batch, DataInfo, ImageInfo
from nasmvt.tasks import ClassificationPrediction, DetectionPrediction, SegmentationPrediction
from nasmvt.tasks.draw import draw_prediction, draw_targets
from nasmvt.tasks.drawing import class_color

CLASSES = ("circle", "square", "star")
GRAY = Image.new("RGB", (64, 48), (128, 128, 128))


def batch(targets: object, n: int = 1, floats: bool = False) -> Batch:
    images = torch.full((n, 3, 64, 64), 128, dtype=torch.uint8)
    infos = [ImageInfo(id=i, size=(64, 64), valid=(64, 64)) for i in range(n)]
    return Batch(images=images / 255 if floats else images, targets=targets, infos=infos)


def changed(picture: Image.Image) -> np.ndarray:
    """Return where an image is not the gray that it was before."""
    return (np.asarray(picture.convert("RGB")) != 128).any(axis=2)


def test_boxes_masks_and_names_are_drawn_where_they_are() -> None:
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 20:40, 16:48] = True
    target = {"boxes": torch.tensor([[16.0, 20.0, 48.0, 40.0]]), "labels": torch.tensor([1]), "masks": mask}
    info = DataInfo(kind="detection", classes=CLASSES, has_masks=True)
    picture = draw_targets(batch([target]), info)
    where = changed(picture)[:256, :256]
    assert where[20 * 4 : 40 * 4, 16 * 4 : 48 * 4].mean() > 0.95
    assert not where[:80, :60].any()
    assert not where[170:].any()
    assert tuple(np.asarray(picture)[120, 16 * 4]) == class_color(1)


def test_a_picture_without_objects_stays_as_it_is() -> None:
    target = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0).long(),
        "masks": torch.zeros(0, 64, 64).bool(),
    }
    picture = draw_targets(batch([target]), DataInfo(kind="detection", classes=CLASSES, has_masks=True))
    assert not changed(picture)[:256, :256].any()


def test_regions_are_coloured_and_ignored_pixels_are_not() -> None:
    labels = torch.full((1, 64, 64), IGNORE)
    labels[0, :, :32] = 2
    picture = draw_targets(batch(labels, floats=True), DataInfo(kind="segmentation", classes=CLASSES))
    where = changed(picture)[:256, :256]
    assert where[:, :128].all()
    assert not where[:, 128:].any()


@pytest.mark.parametrize("targets", [torch.tensor([0, 2, 1]), torch.tensor([[0.7, 0.3, 0.0]] * 3)])
def test_class_names_are_written_below(targets: torch.Tensor) -> None:
    info = DataInfo(kind="classification", classes=CLASSES)
    picture = draw_targets(batch(targets, n=3), info)
    assert picture.width > 2 * 256
    assert not changed(picture)[:256, :256].any()
    strip = np.asarray(picture)[256:272, :256]
    assert (strip > 200).any()


def test_at_most_so_many_pictures_are_drawn() -> None:
    info = DataInfo(kind="classification", classes=CLASSES)
    few = draw_targets(batch(torch.zeros(9).long(), n=9), info, most=1)
    assert few.width < 2 * 256


def test_predictions_are_drawn_on_the_picture() -> None:
    detections = DetectionPrediction(
        size=(48, 64),
        boxes=torch.tensor([[40.0, 24.0, 60.0, 44.0], [2.0, 20.0, 20.0, 40.0]]),
        labels=torch.tensor([0, 2]),
        scores=torch.tensor([0.9, 0.2]),
        masks=None,
        classes=CLASSES,
    )
    picture = draw_prediction(GRAY, detections)
    where = changed(picture)
    assert picture.size == (256, 192)
    assert where[24 * 4 : 44 * 4, 40 * 4].all()
    assert not where[:, :100].any()
    assert changed(draw_prediction(GRAY, detections, min_score=0.1))[:, :100].any()

    labels = torch.zeros(48, 64, dtype=torch.uint8)
    regions = SegmentationPrediction(labels=labels, classes=CLASSES)
    drawn = draw_prediction(GRAY, regions)
    assert changed(drawn)[:192].all()

    classes = ClassificationPrediction(probabilities=torch.tensor([0.2, 0.5, 0.3]), classes=CLASSES)
    assert draw_prediction(GRAY, classes).size[1] > 192


def test_a_canvas_may_be_drawn_on_as_a_tensor() -> None:
    prediction = SegmentationPrediction(labels=torch.ones(48, 64, dtype=torch.uint8), classes=CLASSES)
    expected = np.asarray(draw_prediction(GRAY, prediction))
    canvas = torch.full((3, 48, 64), 128, dtype=torch.uint8)
    assert np.array_equal(np.asarray(draw_prediction(canvas, prediction)), expected)
    assert np.array_equal(np.asarray(draw_prediction(canvas / 255, prediction)), expected)


def test_large_pictures_keep_their_size() -> None:
    large = Image.new("RGB", (640, 480))
    labels = torch.zeros(480, 640, dtype=torch.uint8)
    prediction = SegmentationPrediction(labels=labels, classes=CLASSES)
    assert draw_prediction(large, prediction).width == 640
