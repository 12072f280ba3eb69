import pytest

from nasmvt.data import DataConfig, DataInfo, open_dataset
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


def divided(root, split, share, seed=0):
    return open_dataset(DataConfig(format="imagefolder", root=root, split=share), "classification", split, seed)


def test_one_folder_per_class_is_divided_by_seed(tmp_path):
    for name in ("ant", "bee"):
        for number in range(10):
            write_picture(tmp_path / name / f"{number}.png", (4, 4))
    train, val = divided(tmp_path, "train", 0.2), divided(tmp_path, "val", 0.2)
    assert (len(train), len(val)) == (16, 4)
    assert train.info == val.info
    assert train.info.classes == ("ant", "bee")
    names = sorted(sample.id for dataset in (train, val) for sample in dataset)
    assert names == sorted(f"{name}/{number}.png" for name in ("ant", "bee") for number in range(10))
    again = divided(tmp_path, "val", 0.2, seed=1)
    assert [sample.id for sample in again] != [sample.id for sample in val]
    with pytest.raises(UserError, match=r"'split' must leave images .*, but 0\.01 of 20 images is 0"):
        divided(tmp_path, "train", 0.01)


def test_classes_of_the_settings_are_matched_by_name(root):
    ordered = opened(root, classes=("cow", "bee", "ant"))
    assert [(s.id, s.target) for s in ordered][-1] == ("train/cow/1.png", 0)
    renamed = opened(root, "val", classes=("Ameise", "Biene", "Kuh"))
    assert [s.target for s in renamed] == [2]
    with pytest.raises(UserError, match="cow is found there at another position"):
        opened(root, classes=("cow", "Biene", "Ameise"))


def test_what_is_left_out_is_known_by_reason(root):
    (root / "train/ant/notes.txt").write_text("x")
    (root / "train/ant/photo.heic").write_text("x")
    write_picture(root / "train/ant/.hidden.png")
    write_picture(root / "train/ant/more/x.png")
    (root / "train/list.txt").write_text("x")
    left_out = {reason: sorted(names) for reason, names in opened(root).left_out.items()}
    assert left_out == {
        "ending": ["train/ant/notes.txt", "train/ant/photo.heic", "train/list.txt"],
        "hidden": ["train/ant/.hidden.png"],
        "sub-folder": ["train/ant/more"],
    }


def test_one_class_is_refused(tmp_path):
    write_picture(tmp_path / "train/images/1.png")
    with pytest.raises(UserError, match=r"classification needs two classes or more, but .* has only images"):
        opened(tmp_path)


def test_a_model_knows_the_classes(root):
    known = opened(root).info
    for path in (root / "train").rglob("*.*"):
        path.unlink()
    config = DataConfig(format="imagefolder", root=root)
    assert [s.target for s in open_dataset(config, "classification", "val", 0, known)] == [2]
    other = DataInfo(kind="classification", classes=("ant", "bee"))
    with pytest.raises(UserError, match="but cow is not"):
        open_dataset(config, "classification", "val", 0, other)


def test_a_class_folder_that_is_no_text_is_refused(root):
    (root / "train/b\udce4r").mkdir()
    with pytest.raises(UserError, match=r"'b\\udce4r' in .*train has bytes that are not UTF-8"):
        opened(root)
