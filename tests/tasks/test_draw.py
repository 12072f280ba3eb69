import numpy as np
import pytest
import torch
from PIL import Image

from nasmvt.data.types import IGNORE, Batch, DataInfo, ImageInfo
from nasmvt.tasks import ClassificationPrediction, DetectionPrediction, SegmentationPrediction
from nasmvt.tasks.draw import draw_beside, draw_prediction, draw_targets
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
    assert not where[:60].any()
    assert where[67:80, 64:96].all()  # the name, above the box
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
    assert picture.size[0] == 256
    assert picture.size[1] > 192  # a legend
    assert where[24 * 4 : 44 * 4, 40 * 4].all()
    assert not where[:192, :100].any()
    assert changed(draw_prediction(GRAY, detections, min_score=0.1))[:192, :100].any()

    labels = torch.zeros(48, 64, dtype=torch.uint8)
    regions = SegmentationPrediction(labels=labels, classes=CLASSES)
    drawn = draw_prediction(GRAY, regions)
    assert changed(drawn)[:192].all()

    classes = ClassificationPrediction(probabilities=torch.tensor([0.2, 0.5, 0.3]), classes=CLASSES)
    assert draw_prediction(GRAY, classes).size[1] > 192


def test_names_hide_no_small_object() -> None:
    """Ten pixels wide, in a row and in a corner: what is inside of each box is the image itself."""
    corners = [(0, 0), (100, 100), (112, 100), (124, 100), (100, 112), (290, 290)]
    boxes = torch.tensor([[x, y, x + 10, y + 10] for x, y in corners]).float()
    target = {"boxes": boxes, "labels": torch.tensor([0, 1, 2, 0, 1, 2])}
    image = torch.full((1, 3, 300, 300), 128, dtype=torch.uint8)
    infos = [ImageInfo(id=0, size=(300, 300), valid=(300, 300))]
    picture = draw_targets(
        Batch(images=image, targets=[target], infos=infos), DataInfo(kind="detection", classes=CLASSES)
    )
    where = changed(picture)
    for x, y in corners:
        assert not where[y + 3 : y + 7, x + 3 : x + 7].any()
        assert where[y, x + 5]
    outside = where[:300, :300].copy()
    for x, y in corners:
        outside[max(y - 2, 0) : y + 13, max(x - 2, 0) : x + 13] = False
    assert outside.any(), "no name is drawn at all"


def test_a_single_class_needs_no_name() -> None:
    target = {"boxes": torch.tensor([[16.0, 20.0, 48.0, 40.0]]), "labels": torch.tensor([0])}
    picture = draw_targets(batch([target]), DataInfo(kind="detection", classes=("person",)))
    assert picture.size == (260, 260)  # an image and the gap of the grid
    assert not changed(picture)[:78, :256].any()


def test_small_images_are_enlarged_to_about_256_pixels() -> None:
    for side, expected in ((20, 240), (32, 256), (100, 200), (300, 300)):
        prediction = SegmentationPrediction(labels=torch.zeros(side, side, dtype=torch.uint8), classes=CLASSES)
        assert draw_prediction(Image.new("RGB", (side, side)), prediction).width == expected


def test_legends_wrap() -> None:
    classes = tuple(f"class number {i}" for i in range(12))
    labels = torch.arange(12, dtype=torch.uint8).repeat_interleave(4)[None].expand(48, 48).contiguous()
    picture = draw_prediction(Image.new("RGB", (48, 48)), SegmentationPrediction(labels=labels, classes=classes))
    assert picture.width == 240
    strip = np.asarray(picture)[240:]
    lines = [strip[14 * i + 1 : 14 * i + 15] for i in range(len(strip) // 14)]
    assert len(lines) >= 4
    assert all((line > 200).any() for line in lines)
    for label in range(12):  # each class has its patch
        assert (strip == class_color(label)).all(axis=2).any()


def test_colours_of_many_classes_differ() -> None:
    colors = np.array([class_color(i) for i in range(256)])
    distances = np.abs(colors[:, None] - colors[None]).sum(axis=2) + 1000 * np.eye(256, dtype=int)
    assert distances.min() >= 30
    assert distances[:20, :20].min() >= 100


def test_labels_and_predictions_stand_side_by_side() -> None:
    probabilities = torch.tensor([0.2, 0.5, 0.3])
    found = [ClassificationPrediction(probabilities=probabilities, classes=CLASSES)] * 2
    picture = draw_beside(batch(torch.tensor([0, 2]), n=2), found, DataInfo(kind="classification", classes=CLASSES))
    cell = 256 + 4
    assert picture.width == 2 * cell
    left, right = (np.asarray(picture)[256:272, x : x + 256] for x in (0, cell))
    assert (left > 200).any()
    assert (right > 200).sum() > (left > 200).sum()  # two classes with their probabilities


def test_beside_their_labels_weak_detections_are_drawn_too() -> None:
    target = {"boxes": torch.tensor([[8.0, 8, 20, 20]]), "labels": torch.tensor([1])}
    info = DataInfo(kind="detection", classes=CLASSES)
    boxes = torch.tensor([[8.0, 8, 20, 20], [36, 36, 60, 60]])
    settings = {"size": (64, 64), "boxes": boxes, "labels": torch.tensor([1, 2]), "masks": None, "classes": CLASSES}
    for scores, drawn in [((0.2, 0.1), (True, False)), ((0.9, 0.4), (True, True)), ((0.9, 0.1), (True, False))]:
        found = DetectionPrediction(scores=torch.tensor(scores), **settings)
        where = changed(draw_beside(batch([target]), [found], info))[:256, 260:516]
        assert (where[32:80, 32].all(), where[144:240, 144].all()) == drawn
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    weak = DetectionPrediction(scores=torch.tensor([0.2, 0.1]), **settings)
    assert not changed(draw_beside(batch([nothing]), [weak], info))[:256, 260:516].any()


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
