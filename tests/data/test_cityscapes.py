import numpy as np
import pytest

from nasmvt.data import IGNORE, DataConfig, open_dataset
from nasmvt.errors import UserError
from tests.data.writers import write_labels, write_picture

IDS = np.array([[7, 8, 33], [0, 4, 26]], dtype=np.uint8)
TRAIN_IDS = [[0, 1, 18], [IGNORE, IGNORE, 13]]


@pytest.fixture
def root(tmp_path):
    for split, city in (("train", "bonn"), ("train", "aachen"), ("val", "ulm")):
        write_picture(tmp_path / "leftImg8bit" / split / city / f"{city}_0_leftImg8bit.png", (2, 3))
        write_labels(tmp_path / "gtFine" / split / city / f"{city}_0_gtFine_labelIds.png", IDS)
    return tmp_path


def opened(root, split="train", **more):
    return open_dataset(DataConfig(format="cityscapes", root=root, **more), "segmentation", split, 0)


def test_ids_become_the_19_classes(root):
    train, val = opened(root), opened(root, "val")
    assert train.info == val.info
    assert (len(train), len(train.info.classes), train.info.classes[13]) == (2, 19, "car")
    assert train[0].id == "leftImg8bit/train/aachen/aachen_0_leftImg8bit.png"
    assert train[0].target.tolist() == TRAIN_IDS


def test_train_ids_are_taken_where_they_are(root):
    for path in root.glob("gtFine/*/*/*_labelIds.png"):
        write_labels(path.with_name(path.name.replace("labelIds", "labelTrainIds")), np.array(TRAIN_IDS, np.uint8))
        path.unlink()
    assert opened(root)[0].target.tolist() == TRAIN_IDS


def test_ids_can_mean_something_else(root):
    dataset = opened(root, labels={7: "flat", 8: "flat", 26: "car"}, ignore=(0, 4, 33))
    assert dataset.info.classes == ("flat", "car")
    assert dataset[0].target.tolist() == [[0, 0, IGNORE], [IGNORE, IGNORE, 1]]


def test_missing_things_are_named(root):
    path = root / "gtFine/train/bonn/bonn_0_gtFine_labelIds.png"
    path.unlink()
    with pytest.raises(UserError, match=r"there is no .*bonn_0_gtFine_labelIds\.png"):
        opened(root)
    write_picture(root / "leftImg8bit/train/aachen/other.png")
    write_labels(path, IDS)
    assert list(opened(root).left_out["ending"]) == ["aachen/other.png"]
