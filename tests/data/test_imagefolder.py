import pytest

from nasmvt.data import DataConfig, open_dataset
from nasmvt.errors import UserError
from tests.data.writers import write_picture


def opened(root, split="train", **more):
    return open_dataset(DataConfig(format="imagefolder", root=root, **more), "classification", split, 0)


@pytest.fixture
def root(tmp_path):
    for name in ("train/bee/1.png", "train/ant/b.jpg", "train/ant/a.JPG", "train/cow/1.png", "val/cow/9.png"):
        write_picture(tmp_path / name)
    return tmp_path


def test_labels_follow_the_training_folders(root):
    train, val = opened(root), opened(root, "val")
    assert train.info == val.info
    assert train.info.classes == ("ant", "bee", "cow")
    assert [(s.id, s.target) for s in train] == [
        ("train/ant/a.JPG", 0),
        ("train/ant/b.jpg", 0),
        ("train/bee/1.png", 1),
        ("train/cow/1.png", 2),
    ]
    assert [(s.id, s.target) for s in val] == [("val/cow/9.png", 2)]


def test_other_files_and_hidden_ones_are_passed_over(root):
    (root / "train/ant/notes.txt").write_text("x")
    write_picture(root / "train/ant/.hidden.png")
    write_picture(root / "train/.cache/x.png")
    (root / "train/list.txt").write_text("x")
    assert len(opened(root)) == 4


def test_other_names_of_the_splits_are_found(root):
    (root / "train").rename(root / "training")
    (root / "val").rename(root / "validation")
    assert (len(opened(root)), len(opened(root, "val"))) == (4, 1)
    (root / "validation").rename(root / "test")
    assert len(opened(root, "val", val_split="test")) == 1


def test_errors_name_the_folder(root):
    (root / "train/dog").mkdir()
    with pytest.raises(UserError, match="train/dog holds no images"):
        opened(root)
    (root / "train/dog").rmdir()
    write_picture(root / "val/elk/1.png")
    with pytest.raises(UserError, match=r"val must be one of the training split .*, but elk is not"):
        opened(root, "val")
    with pytest.raises(UserError, match=r"no .*/test: create it"):
        opened(root, "val", val_split="test")
    (root / "empty").mkdir()
    with pytest.raises(UserError, match="empty must hold one folder of images per class"):
        opened(root, train_split="empty")


def test_cifar10(shared_data):
    dataset = opened(shared_data("cls_cifar10"), "val")
    assert (len(dataset), len(dataset.info.classes)) == (1000, 10)
    assert dataset.info.classes[dataset[150].target] in dataset[150].id
