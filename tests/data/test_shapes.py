import hashlib
import pickle

import numpy as np
import pytest
import torch

from nasmvt.data import DataConfig, open_dataset
from nasmvt.data.detection import mask_boxes
from nasmvt.data.loader import TrainLoader
from tests.data.targets import plain

KINDS = ("classification", "detection", "segmentation")
CONFIG = DataConfig(train_images=60, val_images=20, image_size=(48, 80))
HARD = CONFIG.model_copy(update={"format": "shapes_hard"})
BOTH = pytest.mark.parametrize("config", [CONFIG, HARD], ids=["shapes", "shapes_hard"])
DIGESTS = {
    "classification": "63f2bf9f703410d6",
    "detection": "e9fc7828eb108381",
    "segmentation": "e9fc7828eb108381",
    "panoptic": "651bda21867d24a2",
}


def pixels(sample):
    return torch.from_numpy(np.array(sample.image))


@pytest.mark.parametrize("kind", DIGESTS)
def test_the_default_images_never_change(kind):
    dataset = open_dataset(CONFIG, kind, "train", 3)
    images = b"".join(np.asarray(dataset[i].image).tobytes() for i in range(10))
    assert hashlib.sha256(images).hexdigest()[:16] == DIGESTS[kind]


@BOTH
@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_a_function_of_seed_split_and_index(kind, config):
    one, two = (open_dataset(config, kind, "train", 3) for _ in range(2))
    assert torch.equal(pixels(one[7]), pixels(two[7]))
    assert plain(one[7].target) == plain(two[7].target)
    for other in (one[8], open_dataset(config, kind, "val", 3)[7], open_dataset(config, kind, "train", 4)[7]):
        assert not torch.equal(pixels(one[7]), pixels(other))


@pytest.mark.parametrize("kind", KINDS)
def test_drawing_leaves_the_global_generators_alone(kind):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    open_dataset(CONFIG, kind, "train", 3)[0]
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


@pytest.mark.parametrize("kind", KINDS)
def test_size_length_and_end(kind):
    dataset = open_dataset(CONFIG, kind, "val", 0)
    assert (len(dataset), len(list(dataset))) == (20, 20)
    assert dataset[0].image.size == (80, 48)
    with pytest.raises(IndexError):
        dataset[20]


@BOTH
def test_classification_draws_every_class(config):
    dataset = open_dataset(config, "classification", "train", 0)
    assert {dataset[i].target for i in range(60)} == set(range(len(dataset.info.classes)))


@BOTH
def test_boxes_are_tight_around_visible_masks_that_do_not_overlap(config):
    dataset = open_dataset(config, "detection", "train", 0)
    counts = set()
    for i in range(60):
        target = dataset[i].target
        counts.add(len(target["boxes"]))
        masks = target["masks"].dense()
        assert torch.equal(target["boxes"], mask_boxes(masks))
        assert masks.sum(dim=0).max() == 1
        assert not target["crowd"].any()
        assert target["labels"].dtype == torch.int64
    assert dataset.info.has_masks
    assert counts >= {1, 2, 3, 4}


@BOTH
def test_detection_and_segmentation_show_the_same_scenes(config):
    boxes = open_dataset(config, "detection", "train", 0)[5]
    areas = open_dataset(config, "segmentation", "train", 0)[5]
    expected = torch.zeros(48, 80, dtype=torch.uint8)
    for label, mask in zip(boxes.target["labels"], boxes.target["masks"].dense(), strict=True):
        expected[mask] = label + 1
    assert torch.equal(areas.target, expected)
    assert torch.equal(pixels(boxes), pixels(areas))
    assert open_dataset(config, "segmentation", "train", 0).info.classes[0] == "background"


def test_hard_scenes_have_thin_small_and_occluded_objects_of_every_class():
    dataset = open_dataset(HARD, "detection", "train", 0)
    targets = [dataset[i].target for i in range(60)]
    boxes = torch.cat([target["boxes"] for target in targets])
    labels = torch.cat([target["labels"] for target in targets])
    areas = torch.cat([target["masks"].dense().sum(dim=(1, 2)) for target in targets])
    assert set(labels.tolist()) == set(range(len(dataset.info.classes)))
    sides = boxes[:, 2:] - boxes[:, :2]
    assert (sides.amax(dim=1) <= 12).sum() >= 5
    bars = labels == dataset.info.classes.index("bar")
    assert (areas[bars] < 0.5 * sides[bars].prod(dim=1)).any()
    covered = areas / sides.prod(dim=1)
    circles = covered[labels == dataset.info.classes.index("circle")]
    assert circles.max() > 0.7
    assert circles.min() < 0.6  # of pi / 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_reads_once_and_changes_nothing(kind):
    read = open_dataset(CONFIG, kind, "train", 3)
    kept = open_dataset(CONFIG.model_copy(update={"cache": True}), kind, "train", 3)
    assert kept[4] is kept[4]
    assert kept.identity() == read.identity()
    loaders = [TrainLoader(dataset, range(6), CONFIG, 4, 0) for dataset in (read, kept)]
    for step in range(3):  # two epochs
        first, second = (loader.batch(step) for loader in loaders)
        assert torch.equal(first.images, second.images)
        assert [plain(target) for target in first.targets] == [plain(target) for target in second.targets]
    assert not pickle.loads(pickle.dumps(kept))._samples


def test_a_shape_stands_out_from_its_ground():
    dataset = open_dataset(CONFIG, "detection", "train", 0)
    for i in range(20):
        image, target = np.asarray(dataset[i].image).astype(float), dataset[i].target
        masks = target["masks"].dense()
        ground = image[~masks.any(dim=0).numpy()].mean(axis=0)
        for mask in masks.numpy():
            assert np.linalg.norm(image[mask].mean(axis=0) - ground) > 40
