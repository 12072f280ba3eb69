import itertools
import logging
import pickle

import numpy as np
import pytest
import torch

from nasmvt.data import (
    AugmentationConfig,
    DataConfig,
    EvalSet,
    EvalTransform,
    TrainLoader,
    UnreadableImage,
    open_dataset,
)
from nasmvt.data.loader import Parts
from nasmvt.errors import UserError
from tests.data.targets import plain
from tests.data.writers import annotation, write_broken, write_coco, write_picture

KINDS = ("classification", "detection", "segmentation")
CONFIG = DataConfig(image_size=32, train_images=10, val_images=5)


def loader(kind, config=CONFIG, batch_size=4, seed=0, indices=None):
    dataset = open_dataset(config, kind, "train", 0)
    return TrainLoader(dataset, range(len(dataset)) if indices is None else indices, config, batch_size, seed)


def assert_same(one, two):
    assert torch.equal(one.images, two.images)
    torch.testing.assert_close(one.targets, two.targets, rtol=0, atol=0)
    assert list(one.infos) == list(two.infos)


def ids(batch):
    return [info.id for info in batch.infos]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_a_function_of_seed_and_step(kind):
    steps = [loader(kind).batch(step) for step in range(6)]
    backwards = loader(kind)
    for step in reversed(range(6)):
        assert_same(backwards.batch(step), steps[step])
    for batch, expected in zip(loader(kind).batches(2), steps[2:], strict=False):
        assert_same(batch, expected)
    assert not torch.equal(loader(kind, seed=1).batch(0).images, steps[0].images)


def test_slots_are_dealt_from_both_ends():
    assert [Parts(of=2).slots(part, 8) for part in (0, 1)] == [[0, 1, 6, 7], [2, 3, 4, 5]]
    assert [Parts(of=3).slots(part, 6) for part in range(3)] == [[0, 5], [1, 4], [2, 3]]
    assert [Parts(of=2).slots(part, 2) for part in (0, 1)] == [[0], [1]]
    assert Parts().slots(0, 5) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_parts_hold_the_images_of_the_whole_batch_mixed_ones_too(kind, workers):
    config = CONFIG.model_copy(update={"workers": workers})
    assert CONFIG.augmentation.mixup > 0
    parts = Parts(of=2, wanted=(1, 0))
    stream = loader(kind, config, batch_size=4).batches(3, parts)
    for step in (3, 4):
        whole = loader(kind, batch_size=4).batch(step)
        for part in parts.wanted:
            slots, found = parts.slots(part, 4), next(stream)
            assert torch.equal(found.images, whole.images[slots])
            torch.testing.assert_close(list(found.targets), [whole.targets[slot] for slot in slots], rtol=0, atol=0)
            assert list(found.infos) == [whole.infos[slot] for slot in slots]


def test_parts_that_are_unequal_or_cut_pairs_are_refused():
    with pytest.raises(UserError, match=r"into 3 equal parts .* 'batch_size' is 4: make it a multiple of 3"):
        loader("detection").check(Parts(of=3))
    with pytest.raises(UserError, match=r"even number of images, but 'batch_size' 4 is cut into 4 .* a multiple of 8"):
        loader("classification").check(Parts(of=4))
    plain = CONFIG.model_copy(update={"augmentation": AugmentationConfig(mixup=0, cutmix=0)})
    loader("classification", plain).check(Parts(of=4))
    loader("detection").check(Parts(of=4))
    loader("classification", batch_size=5).check(Parts())


@pytest.mark.parametrize("kind", KINDS)
def test_workers_give_the_same_batches_and_draw_nothing_from_the_global_generator(kind):
    config = CONFIG.model_copy(update={"workers": 2})
    before = torch.get_rng_state()
    for step, batch in enumerate(itertools.islice(loader(kind, config).batches(3), 4), start=3):
        assert_same(batch, loader(kind).batch(step))
    assert torch.equal(before, torch.get_rng_state())


def test_every_epoch_holds_every_picture_once_in_another_order():
    batches = loader("segmentation").batches()
    order = [name for batch in itertools.islice(batches, 5) for name in ids(batch)]
    epochs = order[:10], order[10:]
    assert set(epochs[0]) == set(epochs[1]) == {f"train/{i}" for i in range(10)}
    assert epochs[0] != epochs[1]


def test_repeated_pictures_follow_one_another_and_every_one_is_used():
    config = CONFIG.model_copy(update={"augmentation": AugmentationConfig(repeats=3)})
    found = list(itertools.islice(loader("segmentation", config, batch_size=6).batches(), 5))
    order = [name for batch in found for name in ids(batch)]
    assert order[::3] == order[1::3] == order[2::3]
    assert set(order) == {f"train/{i}" for i in range(10)}
    assert not torch.equal(found[0].images[0], found[0].images[1])


def test_only_the_given_pictures_are_used():
    batch = loader("segmentation", indices=[2, 5], batch_size=7).batch(0)
    assert set(ids(batch)) == {"train/2", "train/5"}
    assert batch.images.shape == (7, 3, 32, 32)


def test_the_same_picture_is_augmented_anew():
    batch = loader("segmentation", indices=[2], batch_size=2).batch(0)
    assert not torch.equal(batch.images[0], batch.images[1])
    later = loader("segmentation", indices=[2], batch_size=2).batch(1)
    assert not torch.equal(batch.images[0], later.images[0])


def test_what_a_batch_of_each_kind_holds():
    detection, segmentation = loader("detection").batch(0), loader("segmentation").batch(0)
    assert detection.images.dtype == segmentation.images.dtype == torch.uint8
    assert [sorted(target) for target in detection.targets] == [["boxes", "labels", "masks"]] * 4
    assert (segmentation.targets.shape, segmentation.targets.dtype) == ((4, 32, 32), torch.uint8)


@pytest.mark.parametrize("batch_size", [1, 4, 5])
@pytest.mark.parametrize("alphas", [{"mixup": 0.8, "cutmix": 0}, {"mixup": 0, "cutmix": 1.0}, {}])
def test_mixed_targets_are_soft_and_whole(batch_size, alphas):
    mixed = CONFIG.model_copy(update={"augmentation": AugmentationConfig(**alphas)})
    plain = CONFIG.model_copy(update={"augmentation": AugmentationConfig(mixup=0, cutmix=0)})
    batch = loader("classification", mixed, batch_size).batch(0)
    hard = loader("classification", plain, batch_size).batch(0)
    assert (hard.targets.dtype, hard.targets.shape) == (torch.int64, (batch_size,))
    assert (batch.targets.dtype, batch.targets.shape) == (torch.float32, (batch_size, 5))
    torch.testing.assert_close(batch.targets.sum(dim=1), torch.ones(batch_size))
    for place in range(batch_size):
        partner = hard.targets[batch_size - batch_size % 2 - 1 - place] if batch_size > 1 else 0
        names = {int(hard.targets[place]), int(partner)}
        assert set(batch.targets[place].nonzero().flatten().tolist()) <= names
    if batch_size % 2:
        assert torch.equal(batch.images[-1], hard.images[-1] / 255)
        assert batch.targets[-1, hard.targets[-1]] == 1
    else:
        assert not torch.equal(batch.images, hard.images / 255)


def test_the_soft_targets_are_the_shares_of_the_pictures():
    mixed = CONFIG.model_copy(update={"augmentation": AugmentationConfig(mixup=1.0, cutmix=0)})
    plain = CONFIG.model_copy(update={"augmentation": AugmentationConfig(mixup=0, cutmix=0)})
    indices = [0, next(i for i in range(10) if label(i) != label(0))]
    batch = loader("classification", mixed, 2, indices=indices).batch(0)
    hard = loader("classification", plain, 2, indices=indices).batch(0)
    share = batch.targets[0, hard.targets[0]]
    assert 0.01 < share < 0.99
    images = hard.images / 255
    expected = share * images + (1 - share) * images.flip(0)
    torch.testing.assert_close(batch.images, expected)


def label(index):
    return open_dataset(CONFIG, "classification", "train", 0)[index].target


def test_loading_leaves_the_global_generators_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    loader("classification").batch(0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_loader_can_be_sent_to_a_worker(kind):
    assert_same(pickle.loads(pickle.dumps(loader(kind))).batch(1), loader(kind).batch(1))


def test_empty_splits_and_batches_are_refused():
    with pytest.raises(UserError, match="at least one image, but the split is empty"):
        loader("detection", indices=[])
    with pytest.raises(UserError, match="the batch size is 0"):
        loader("detection", batch_size=0)
    with pytest.raises(UserError, match="the batch size is 0"):
        EvalSet(open_dataset(CONFIG, "detection", "val", 0), [0], CONFIG, 0)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_shows_every_picture_once_with_its_own_labels(kind, workers):
    config = DataConfig(image_size=(40, 64), val_images=5, workers=workers)
    small = config.model_copy(update={"image_size": (32, 32)})
    dataset = open_dataset(config, kind, "val", 0)
    batches = list(EvalSet(dataset, [4, 0, 2, 1, 3], small, 2))
    assert [ids(batch) for batch in batches] == [["val/4", "val/0"], ["val/2", "val/1"], ["val/3"]]
    flat = [
        (image, target, info) for b in batches for image, target, info in zip(b.images, b.targets, b.infos, strict=True)
    ]
    for index, (image, target, info) in zip([4, 0, 2, 1, 3], flat, strict=True):
        expected, expected_info = EvalTransform(small)(dataset[index].image, dataset[index].id)
        assert torch.equal(image, expected)
        assert info == expected_info
        assert (info.size, info.valid) == ((40, 64), (20, 32))
        if kind == "classification":
            assert target == dataset[index].target
        else:
            assert plain(target) == plain(dataset[index].target)
    if kind == "classification":
        assert batches[0].targets.dtype == torch.int64


def test_evaluation_keeps_crowds(tmp_path):
    write_coco(tmp_path, "train", [annotation(1, 1, 7, [1, 1, 5, 5]), annotation(2, 1, 7, [1, 1, 9, 9], iscrowd=1)])
    config = DataConfig(format="coco", root=tmp_path, image_size=32)
    dataset = open_dataset(config, "detection", "train", 0)
    batch = next(iter(EvalSet(dataset, [0, 1], config, 2)))
    assert batch.targets[0]["crowd"].tolist() == [False, True]
    trained = TrainLoader(dataset, [0], config, 1, 0)
    assert all(len(trained.batch(step).targets[0]["labels"]) <= 1 for step in range(5))


@pytest.fixture
def damaged(tmp_path):
    for place in range(6):
        write_picture(tmp_path / "train" / "ant" / f"{place}.png")
    write_picture(tmp_path / "train" / "bee" / "6.png")
    for place in (1, 2):
        write_broken(tmp_path / "train" / "ant" / f"{place}.png")
    return DataConfig(format="imagefolder", root=tmp_path, image_size=16, workers=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_picture_stops_by_name(damaged, workers):
    config = damaged.model_copy(update={"workers": workers})
    dataset = open_dataset(config, "classification", "train", 0)
    with pytest.raises(UnreadableImage, match=r"^the image .*1\.png can't be decoded .*skip_unreadable$"):
        list(EvalSet(dataset, range(6), config, 2))
    with pytest.raises(UnreadableImage, match=r"^the image .*[12]\.png can't be decoded"):
        next(TrainLoader(dataset, range(6), config, 6, 0).batches())


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_pictures_are_left_out_if_asked(damaged, workers, caplog):
    config = damaged.model_copy(update={"skip_unreadable": True, "workers": workers})
    dataset = open_dataset(config, "classification", "train", 0)
    with caplog.at_level(logging.WARNING):
        batches = EvalSet(dataset, range(6), config, 2)
        shown = [ids(batch) for batch in batches]
    assert shown == [["train/ant/0.png"], ["train/ant/3.png"], ["train/ant/4.png", "train/ant/5.png"]]
    assert [sentence.split("/ant/")[1][:5] for sentence in batches.skipped] == ["1.png", "2.png"]
    assert sum("1.png" in record.getMessage() for record in caplog.records) == 1

    trained = TrainLoader(dataset, range(6), config, 6, 0)
    first = next(trained.batches())
    assert_same(first, trained.batch(0))
    assert {f"train/ant/{place}.png" for place in (0, 3, 4, 5)} == set(ids(first))
    hopeless = TrainLoader(dataset, [1, 2], config, 2, 0)
    with pytest.raises(UserError, match="none of the 2 training images can be decoded"):
        hopeless.batch(0)


def test_a_chunk_without_readable_pictures_is_passed_over(damaged):
    config = damaged.model_copy(update={"skip_unreadable": True})
    dataset = open_dataset(config, "classification", "train", 0)
    assert [ids(b) for b in EvalSet(dataset, range(6), config, 1)] == [[f"train/ant/{n}.png"] for n in (0, 3, 4, 5)]
