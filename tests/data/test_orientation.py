import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from nasmvt.data.detection import mask_boxes
from nasmvt.data.orientation import labels_orientation, orientation_of, turn_array, turn_boxes, turn_image, upright_size

ORIENTATIONS = range(1, 9)


@pytest.fixture(name="stored", params=ORIENTATIONS)
def image_with_orientation(request, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = request.param
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    return Image.open(tmp_path / "x.png")


def test_images_and_arrays_are_turned_as_by_pillow(stored):
    orientation = orientation_of(stored)
    expected = np.asarray(ImageOps.exif_transpose(stored))
    assert np.array_equal(np.asarray(turn_image(stored, orientation)), expected)
    assert np.array_equal(turn_array(np.asarray(stored), orientation), expected)
    assert upright_size((20, 30), orientation) == expected.shape[:2]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_boxes_are_turned_with_their_masks(orientation):
    masks = torch.zeros(2, 20, 30, dtype=torch.bool)
    masks[0, 2:7, 5:25] = True
    masks[1, 10:20, 0:3] = True
    turned = torch.from_numpy(np.stack([turn_array(mask, orientation) for mask in masks.numpy()]))
    assert torch.equal(turn_boxes(mask_boxes(masks), (20, 30), orientation), mask_boxes(turned))


@pytest.mark.parametrize("value", [0, 9, 99, "6", (6, 6)])
def test_what_makes_no_sense_is_upright(value, monkeypatch):
    image = Image.new("RGB", (2, 2))
    monkeypatch.setattr(image, "getexif", lambda: {0x0112: value})
    assert orientation_of(image) == 1


@pytest.mark.parametrize(
    ("orientation", "labelled", "annotated", "expected"),
    [
        (1, (20, 30), None, 1),
        (6, (30, 20), None, 1),  # the size of the upright image: drawn upright
        (6, (20, 30), None, 6),  # the size of the stored one: drawn on the stored pixels
        (3, (20, 30), None, 1),  # both sizes are alike
        (3, (20, 30), "stored", 3),
        (6, (20, 30), "upright", 1),  # a tool that writes the stored size and draws upright
        (6, (30, 20), "stored", 6),
    ],
)
def test_the_size_or_the_setting_says_how_labels_lie(orientation, labelled, annotated, expected):
    assert labels_orientation((20, 30), orientation, labelled, annotated) == expected


def test_a_size_that_is_neither_is_refused():
    with pytest.raises(ValueError, match=r"30x20 as stored and 20x30 upright \(EXIF orientation 6\), and not 31x20"):
        labels_orientation((20, 30), 6, (20, 31), None)
    with pytest.raises(ValueError, match="it is 30x20, and not 20x30"):
        labels_orientation((20, 30), 1, (30, 20), None)
