import sys

import numpy as np
import pytest
import torch
from pycocotools import mask as reference

from nasmvt.data.masks import ObjectMasks, encode_masks
from nasmvt.data.orientation import turn_array
from nasmvt.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools

POLYGONS = [[2.0, 3.0, 15.5, 3.0, 15.5, 12.2, 2.0, 9.0], [20.0, 1.0, 28.0, 1.0, 24.0, 9.0]]
BLOCK = np.zeros((20, 30), dtype=np.uint8, order="F")
BLOCK[4:11, 6:20] = 1
FLAT = BLOCK.flatten(order="F")
RUNS = {"size": [20, 30], "counts": np.diff([0, *np.flatnonzero(np.diff(FLAT)) + 1, FLAT.size]).tolist()}
COMPRESSED = {"size": [20, 30], "counts": reference.encode(BLOCK)["counts"].decode()}
BOX = (1.5, 2.0, 4.5, 6.0)


@pytest.fixture(name="expected")
def drawn_by_the_reference():
    block = BLOCK.astype(bool)
    polygons = reference.decode(reference.merge(reference.frPyObjects(POLYGONS, 20, 30))).astype(bool)
    box = np.pad(np.ones((4, 4), dtype=bool), ((2, 14), (1, 25)))
    return np.stack([polygons, block, block, box, block])


def masks():
    return ObjectMasks((20, 30), [POLYGONS, RUNS, COMPRESSED, BOX, BLOCK.astype(bool)])


def test_every_form_is_drawn_as_pycocotools_draws_it(expected):
    assert len(masks()) == 5
    assert masks().dense().dtype == torch.bool
    assert np.array_equal(masks().dense().numpy(), expected)
    assert np.array_equal(masks().numpy(), expected)


def test_run_lengths_are_those_of_pycocotools(expected):
    columns_first = np.asfortranarray(expected.transpose(1, 2, 0).astype(np.uint8))
    runs = [{"size": [20, 30], "counts": rle["counts"].decode()} for rle in reference.encode(columns_first)]
    assert masks().rles() == runs
    assert encode_masks(torch.from_numpy(expected)) == runs
    assert masks().areas() == expected.sum(axis=(1, 2)).tolist()


@pytest.mark.parametrize("encoded_before", [False, True])
def test_a_choice_of_objects(encoded_before):
    whole, kept = masks(), torch.tensor([True, False, False, True, False])
    if encoded_before:
        whole.rles()
    chosen = whole[kept]
    assert torch.equal(chosen.dense(), whole.dense()[kept])
    assert chosen.rles() == [whole.rles()[0], whole.rles()[3]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_are_turned_with_their_image(expected, orientation):
    turned = ObjectMasks((20, 30), [POLYGONS, RUNS, COMPRESSED, BOX, BLOCK.astype(bool)], "x", orientation)
    dense = torch.from_numpy(np.stack([turn_array(mask, orientation) for mask in expected]))
    assert turned.size == tuple(dense.shape[1:])
    assert torch.equal(turned.dense(), dense)
    assert turned.rles() == encode_masks(dense)
    assert torch.equal(turned[torch.tensor([False, True, False, False, True])].dense(), dense[[1, 4]])


def test_masks_are_encoded_once(monkeypatch):
    one = masks()
    first = one.rles()
    monkeypatch.setattr("nasmvt.data.masks._library", lambda: pytest.fail("encoded again"))
    assert one.rles() is first


def test_no_objects():
    none = ObjectMasks((20, 30), [])
    assert none.dense().shape == (0, 20, 30)
    assert none.rles() == none.areas() == []


def test_dense_masks_and_boxes_are_drawn_without_the_library(expected, monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    dense = torch.from_numpy(expected)
    assert torch.equal(ObjectMasks.of(dense).dense(), dense)
    assert ObjectMasks((20, 30), [BOX]).dense().sum() == 16
    with pytest.raises(UserError, match="pip install faster-coco-eval"):
        masks().dense()
