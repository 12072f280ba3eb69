"""Evaluation images are read where they are used, and a bounded part of them is kept."""

import pickle

import pytest
import torch

from nasmvt.data import DataConfig, EvalSet, open_dataset
from nasmvt.errors import UserError
from tests.data.targets import plain

CONFIG = DataConfig(image_size=32, train_images=10)
KINDS = ("classification", "detection", "segmentation")


class Counted:
    """A data set that notes what is read of it."""

    def __init__(self, kind: str) -> None:
        self._dataset = open_dataset(CONFIG, kind, "train", 0)
        self.info = self._dataset.info
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int):
        self.read.append(index)
        return self._dataset[index]


def alike(one, two) -> bool:
    same_images = all(torch.equal(a.images, b.images) for a, b in zip(one, two, strict=True))
    return same_images and [plain(t) for b in one for t in b.targets] == [plain(t) for b in two for t in b.targets]


@pytest.mark.parametrize("on_canvas", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_pass_gives_the_same_and_reads_nothing_twice_that_was_kept(kind, on_canvas):
    dataset = Counted(kind)
    images = EvalSet(dataset, [7, 1, 4, 0, 9], CONFIG, 2, on_canvas=on_canvas)
    first, second = list(images), list(images)
    assert [len(batch.images) for batch in first] == [2, 2, 1]
    assert alike(first, second)
    assert dataset.read == [7, 1, 4, 0, 9]
    assert len(images) == 5


def test_no_more_is_kept_than_there_is_room_for():
    dataset = Counted("classification")
    images = EvalSet(dataset, range(6), CONFIG, 2, cache=2 * (3 * 32 * 32) + 2000)
    for _ in range(3):
        list(images)
    assert dataset.read == [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 2, 3, 4, 5]
    nothing = Counted("classification")
    images = EvalSet(nothing, range(4), CONFIG, 2, cache=0)
    assert alike(list(images), list(images))
    assert len(nothing.read) == 8


def test_what_travels_is_light_and_reads_the_same_elsewhere():
    images = EvalSet(open_dataset(CONFIG, "segmentation", "train", 0), range(10), CONFIG, 4)
    before = len(pickle.dumps(images))
    batches = list(images)
    sent = pickle.dumps(images)
    assert len(sent) == before < 8000
    assert alike(batches, list(pickle.loads(sent)))


def test_ground_truth_masks_are_encoded_once_for_all_candidates(monkeypatch):
    images = EvalSet(open_dataset(CONFIG, "detection", "train", 0), range(4), CONFIG, 2)
    first = [target["masks"].rles() for batch in images for target in batch.targets]
    monkeypatch.setattr("nasmvt.data.masks._library", lambda: pytest.fail("encoded again"))
    assert [target["masks"].rles() for batch in images for target in batch.targets] == first


def test_blocks_divide_the_images_and_keep_their_own():
    dataset = Counted("classification")
    images = EvalSet(dataset, [7, 1, 4, 0, 9], CONFIG, 2)
    list(images)
    blocks = images.blocks(3)
    assert [len(block) for block in blocks] == [2, 2, 1]
    dataset.read.clear()
    for block in blocks * 2:
        list(block)
    assert dataset.read == [7, 0, 1, 9, 4]
    assert alike(blocks[1], EvalSet(dataset, [1, 9], CONFIG, 2))
    with pytest.raises(UserError, match="6 blocks of images need as many images, but there are 5: take more"):
        images.blocks(6)
