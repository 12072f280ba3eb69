import json

import numpy as np
import pytest
from pycocotools import mask as reference

from nasmvt.data.segmentations import decompress, has_segmentation

SIZE = (20, 30)


def checked(value):
    return has_segmentation(json.dumps(value).encode(), SIZE)


@pytest.mark.parametrize("seed", range(20))
def test_compressed_run_lengths_are_read_as_by_pycocotools(seed):
    random = np.random.default_rng(seed)
    mask = (random.random((300, 400)) < random.choice([0.0, 0.001, 0.5, 1.0])).astype(np.uint8, order="F")
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size])
    expected = [0, *counts] if flat[0] else list(counts)
    assert decompress(reference.encode(mask)["counts"].decode()).tolist() == expected


@pytest.mark.parametrize("text", ["Z" * 40, "é", "a", "P", "0" * 5 + "\x7f", " "])
def test_what_is_no_compressed_string_is_refused(text):
    with pytest.raises(ValueError, match="fix or remove its segmentation"):
        checked({"size": list(SIZE), "counts": text})


@pytest.mark.parametrize("nothing", [None, [], [[]], [[], []], {"size": [20, 30], "counts": []}, {"counts": ""}])
def test_nothing_is_no_segmentation(nothing):
    assert not checked(nothing)


def test_polygons_may_lie_outside_a_little():
    assert checked([[-5, -5, 40, 0, 20, 25.5]])
    assert checked([[-300, -5, 300, 0, 20, 25.5]])


@pytest.mark.parametrize(
    ("value", "fragment"),
    [
        ([[4, 5, 1e9, 5, 20, 17]], "a polygon with the coordinate 1e+09, far outside the image of 30x20 pixels"),
        ([[4, 5, 20, -301, 20, 17]], "the coordinate -301, far outside"),
        ([[], [4, 5, 20, 5, 20, 17]], "the polygon [], which is not a list of three or more points"),
        ([[4, 5, 20, 5, 20]], "the polygon [4.0, 5.0, 20.0, 5.0, 20.0], which"),
        ([4, 5, 20, 5, 20, 17], "neither a list of polygons nor run lengths"),
        ([["4", "5"]], "neither a list of polygons nor run lengths"),
        ("abc", "neither a list of polygons nor run lengths"),
        ({"size": [30, 20], "counts": [600]}, "a run-length mask of size [30, 20] on an image of size [20, 30]"),
        ({"size": [20, 30], "counts": [5, 6]}, "run lengths that add up to 11 and not to 600 pixels"),
        ({"size": [20, 30], "counts": [700, -100]}, "run lengths that add up to 600 and not to 600 pixels"),
        ({"size": [20, 30], "counts": [0.5, 599.5]}, "run lengths"),
    ],
)
def test_what_is_wrong_is_said(value, fragment):
    with pytest.raises(ValueError, match="fix or remove its segmentation") as error:
        checked(value)
    assert fragment in str(error.value)
