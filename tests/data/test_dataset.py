import numpy as np
import pytest

from nasmvt.data import DataConfig, open_dataset
from nasmvt.errors import UserError


@pytest.mark.parametrize(
    ("form", "kind", "fragment"),
    [
        (
            "imagefolder",
            "detection",
            "'imagefolder' holds data for classification, but the task is detection",
        ),
        ("coco", "segmentation", "use one of the formats 'shapes', 'shapes_hard', 'voc', 'ade20k', 'cityscapes'"),
        ("ade20k", "classification", "use one of the formats 'shapes', 'shapes_hard', 'imagefolder'"),
    ],
)
def test_the_format_must_fit_the_kind(tmp_path, form, kind, fragment):
    with pytest.raises(UserError, match=fragment):
        open_dataset(DataConfig(format=form, root=tmp_path), kind, "train", 0)


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        open_dataset(DataConfig(format="coco", root=tmp_path / "nowhere"), "detection", "train", 0)


def test_limit_chooses_by_seed():
    def ids(limit, seed, split="train"):
        dataset = open_dataset(DataConfig(limit=limit, train_images=40, val_images=40), "detection", split, seed)
        return [dataset[i].id for i in range(len(dataset))]

    assert len(ids(10, 0)) == 10
    assert ids(10, 0) == ids(10, 0)
    assert ids(10, 0) != ids(10, 1)
    assert set(ids(5, 0)) < set(ids(10, 0))
    assert [i.split("/")[1] for i in ids(10, 0)] != [i.split("/")[1] for i in ids(10, 0, "val")]
    assert len(ids(99, 0)) == 40


def test_limit_keeps_picture_and_label_together():
    config = DataConfig(train_images=40)
    whole = open_dataset(config, "classification", "train", 0)
    part = open_dataset(config.model_copy(update={"limit": 5}), "classification", "train", 0)
    for i in range(5):
        same = whole[int(str(part[i].id).split("/")[1])]
        assert np.array_equal(np.asarray(part[i].image), np.asarray(same.image))
        assert part[i].target == same.target


def test_classes_rename_but_must_be_complete():
    names = ("a", "b", "c", "d", "e")
    assert open_dataset(DataConfig(classes=names), "detection", "train", 0).info.classes == names


def test_too_few_names_are_refused():
    with pytest.raises(UserError, match=r"has 5 classes .*, but 'classes' names 2"):
        open_dataset(DataConfig(classes=("a", "b")), "detection", "train", 0)
