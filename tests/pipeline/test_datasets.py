"""The division of a task's data."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nasmvt.config import parse
from nasmvt.data import EvalTransform
from nasmvt.data.dataset import Limited
from nasmvt.errors import UserError
from nasmvt.pipeline.datasets import TaskData
from nasmvt.tasks.config import TaskConfig
from tests.data.writers import annotation, write_coco


def folder_of_classes(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in ("a", "b", "c"):
            (root / split / label).mkdir(parents=True)
            for number in range(20):
                picture = Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))
                picture.save(root / split / label / f"{number}.png")
    return root


def task_data(root: Path, seed: int = 0) -> TaskData:
    data = {"format": "imagefolder", "root": str(root), "image_size": 16, "search_fraction": 0.5}
    config = parse(TaskConfig, {"kind": "classification", "data": data, "batch_size": 4}, "test")
    return TaskData("cls", config, seed)


def test_a_part_of_a_sorted_search_split_holds_every_class(tmp_path):
    data = task_data(folder_of_classes(tmp_path))
    labels = [int(label) for batch in data.search_images(9) for label in batch.targets]
    assert len(labels) == 9
    assert set(labels) == {0, 1, 2}
    again = [int(label) for batch in data.search_images(9) for label in batch.targets]
    assert labels == again
    assert sum(len(batch.images) for batch in data.search_images()) == 30


def test_training_pictures_are_never_searched_on(tmp_path):
    data = task_data(folder_of_classes(tmp_path))
    train, search = data.division
    assert sorted([*train, *search]) == list(range(60))
    seen = {info.id for step in range(30) for info in data.train_loader().batch(step).infos}
    searched = {info.id for batch in data.search_images() for info in batch.infos}
    assert len(searched) == 30
    assert not seen & searched
    plain = {info.id for batch in data.recalibration_images(10) for info in batch.infos}
    assert plain <= seen
    assert not np.array_equal(task_data(tmp_path, seed=1).division[1], search)


@pytest.mark.parametrize("kind", ["classification", "detection", "segmentation"])
@pytest.mark.parametrize("batch_size", [2, 16])
def test_recalibration_sees_so_many_images_as_evaluation_shows_them(kind, batch_size):
    """Before: batches of the training's size, and classification squashed what evaluation letterboxes."""
    values = {"kind": kind, "batch_size": batch_size, "data": {"image_size": [32, 48], "train_images": 40}}
    data = TaskData("t", parse(TaskConfig, values, "t"), 0)
    batches = list(data.recalibration_images(20))
    infos = [info for batch in batches for info in batch.infos]
    assert len(infos) == len({info.id for info in infos}) == 20
    place = EvalTransform(data.config.data)
    samples = {data.train[index].id: data.train[index] for index in data.division[0]}
    for image, info in zip(torch.cat([batch.images for batch in batches]), infos, strict=True):
        assert torch.equal(image, place(samples[info.id].image)[0])


def test_batches_of_recalibration_hold_every_class_and_are_of_nearly_one_size(tmp_path):
    """Before: in the order of the files, so that a batch of a sorted set held one class, and what was left counted as
    much as a whole batch."""
    data = task_data(folder_of_classes(tmp_path))
    batches = list(data.recalibration_images(20))  # 16 images fit into a batch of evaluation
    assert [len(batch.images) for batch in batches] == [10, 10]
    assert all({int(label) for label in batch.targets} == {0, 1, 2} for batch in batches)
    again = [info.id for batch in data.recalibration_images(20) for info in batch.infos]
    assert [info.id for batch in batches for info in batch.infos] == again


def test_val_opens_without_train_for_a_model_that_knows_its_classes(tmp_path):
    whole = task_data(folder_of_classes(tmp_path))
    known = whole.train.info
    shutil.rmtree(tmp_path / "train")
    val = TaskData(whole.name, whole.config, whole.seed, known).val
    assert val.info == known
    assert len(val) > 0
    with pytest.raises(UserError, match="the split 'train' needs a folder"):
        _ = task_data(tmp_path).val


@pytest.mark.parametrize(("skip", "seen"), [(False, {1, 2}), (True, {1})])
def test_images_without_objects_are_left_out_of_the_training_if_asked(tmp_path, skip, seen):
    write_coco(tmp_path, "train", [annotation(1, 1, 7, [2, 3, 10, 5]), annotation(2, 2, 2, [1, 1, 4, 4], iscrowd=1)])
    settings = {"format": "coco", "root": str(tmp_path), "image_size": 16, "skip_empty": skip}
    data = TaskData("det", parse(TaskConfig, {"kind": "detection", "data": settings, "batch_size": 2}, "t"), 0)
    vars(data)["division"] = (np.arange(2), np.arange(1))
    assert {info.id for info in data.train_loader().batch(0).infos} == seen
    assert Limited(data.train, [1, 0]).occupied(np.array([1, 0])).tolist() == [True, False]


def test_another_order_has_the_same_images_otherwise(tmp_path):
    data = task_data(folder_of_classes(tmp_path))

    def epoch(order: int) -> list[str]:
        return [info.id for info in data.train_loader(len(data.division[0]), order).batch(0).infos]

    assert epoch(0) == epoch(0)
    assert epoch(1) != epoch(0)
    assert set(epoch(1)) == set(epoch(0))
