import numpy as np
import pytest
import torch
from PIL import Image

from nasmvt.data import IGNORE, DataConfig, open_dataset
from nasmvt.errors import UserError
from tests.data.writers import write_labels, write_picture

LABELS = np.zeros((20, 30), dtype=np.uint8)
LABELS[5:, :10] = 1
LABELS[5:, 10:] = 3


def opened(root, split="train", **more):
    return open_dataset(DataConfig(format="ade20k", root=root, **more), "segmentation", split, 0)


@pytest.fixture
def root(tmp_path):
    for split in ("train", "val"):
        write_picture(tmp_path / "images" / split / "x.jpg")
        write_labels(tmp_path / "annotations" / split / "x.png", LABELS)
    return tmp_path


def test_zero_is_ignored_and_the_rest_moves_down(root):
    sample = opened(root)[0]
    assert sample.target.dtype == torch.uint8
    assert torch.equal(torch.unique(sample.target), torch.tensor([0, 2, IGNORE], dtype=torch.uint8))
    assert (sample.target[:5] == IGNORE).all()
    assert (sample.target[5:, :10] == 0).all()
    assert sample.id == "images/train/x.jpg"


def test_class_names_come_from_config_then_file_then_labels(root):
    assert opened(root, "val").info.classes == ("class_1", "class_2", "class_3")
    (root / "objectInfo150.txt").write_text(
        "Idx\tRatio\tTrain\tVal\tName\n1\t0.1\t1\t1\twall, brick \n2\t0\t1\t1\tsky\n3\t0\t1\t1\tsea\n"
    )
    assert opened(root).info.classes == ("wall", "sky", "sea")
    (root / "classes.txt").write_text("1\tsky\n2\troad\n\n3\tcar\n")
    assert opened(root).info.classes == ("sky", "road", "car")
    (root / "classes.txt").write_text("sky\nroad\ncar\ntree\n")
    assert opened(root).info.classes == ("sky", "road", "car", "tree")
    assert opened(root, classes=("a", "b", "c")).info.classes == ("a", "b", "c")


def test_a_palette_picture_holds_its_indices(root):
    picture = Image.fromarray(LABELS).convert("P")
    picture.putpalette(bytes(range(256)) * 3)
    picture.putdata(LABELS.flatten().tolist())
    picture.save(root / "annotations/train/x.png")
    assert (opened(root, classes=("a", "b", "c"))[0].target[5:, 10:] == 2).all()


def test_a_label_out_of_range_is_named(root):
    with pytest.raises(UserError, match=r"train/x\.png holds the label 3, which is neither one of the 2"):
        opened(root, classes=("a", "b"))


def test_sizes_must_agree(root):
    write_labels(root / "annotations/train/x.png", LABELS[:, :29])
    with pytest.raises(UserError, match=r"x\.jpg and .*x\.png have not \(it is 30x20, and not 29x20\)"):
        opened(root)[0]


def test_colours_are_no_labels(root):
    write_picture(root / "annotations/train/x.png")
    with pytest.raises(UserError, match=r"train/x\.png holds uint8 of the shape \(20, 30, 3\)"):
        opened(root, classes=("a", "b"))


def test_a_label_map_that_is_damaged_is_named(root):
    (root / "annotations/train/x.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"label map .*train/x\.png can't be decoded"):
        opened(root, classes=("a", "b"))


def test_missing_things_are_named(root):
    write_picture(root / "images/train/y.jpg")
    with pytest.raises(UserError, match=r"there is no .*annotations/train/y\.png"):
        opened(root)
    with pytest.raises(UserError, match=r"there is no .*images/test"):
        opened(root, "val", val_split="test")
    (root / "images/train").rename(root / "elsewhere")
    with pytest.raises(UserError, match=r"no .*images/train or .*images/training"):
        opened(root)


def test_classes_file_must_name_each_class_once(root):
    (root / "classes.txt").write_text("sky\nsky\n")
    with pytest.raises(UserError, match=r"classes\.txt must name every class once, but names sky twice"):
        opened(root)
    (root / "classes.txt").write_text("\n")
    with pytest.raises(UserError, match=r"classes\.txt must name the classes, but is empty"):
        opened(root)


def test_more_classes_than_labels_can_tell_are_refused(root):
    with pytest.raises(UserError, match=r"at most 255 classes, but have 256"):
        opened(root, classes=tuple(map(str, range(256))))


def test_camvid(shared_data):
    dataset = opened(shared_data("seg_camvid"), "val")
    assert len(dataset) == 101
    assert dataset.info.classes[-1] == "bicyclist"
    target = dataset[0].target
    assert target.shape == (240, 320)
    assert target[target != IGNORE].max() <= 10


def test_ade20k_sample(shared_data):
    dataset = opened(shared_data("seg_ade20k_sample"), "val")
    assert (len(dataset), len(dataset.info.classes)) == (3, 150)
    assert dataset.info.classes[:3] == ("wall", "building", "sky")
    with Image.open(shared_data("seg_ade20k_sample") / "annotations/validation/ADE_val_00000001.png") as stored:
        labels = np.array(stored).astype(int)
    assert np.array_equal(dataset[0].target.numpy(), np.where(labels == 0, IGNORE, labels - 1))
