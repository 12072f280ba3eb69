import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.transforms.v2 import functional as F

from nasmvt.data import (
    IGNORE,
    AugmentationConfig,
    DataConfig,
    EvalTransform,
    Sample,
    TrainTransform,
    open_dataset,
)
from nasmvt.data.detection import mask_boxes
from nasmvt.data.geometry import fit_size
from nasmvt.data.masks import ObjectMasks
from nasmvt.data.targets import TARGETS
from nasmvt.data.transforms import collate, mean_colour
from nasmvt.errors import UserError
from nasmvt.seeding import seeded

MEAN = torch.tensor([124, 116, 104], dtype=torch.uint8).view(3, 1, 1)
STILL = AugmentationConfig(hflip=0, scale=(1, 1))


def scene(kind="detection", size=(80, 120), index=3):
    """A drawn sample of (height, width) `size`, unlike the canvas."""
    return open_dataset(DataConfig(image_size=size), kind, "train", 0)[index]


def transformed(sample, kind, config, seed=0):
    """The image, the target and the info of a training batch of one."""
    targets = TARGETS.get(kind)
    with seeded("test", seed):
        placed = TrainTransform(config, targets)(sample)
    batch = collate([placed], targets.collate, config.train_placement, mean_colour(config))
    return batch.images[0], batch.targets[0], batch.infos[0]


@pytest.mark.parametrize(
    ("size", "valid"),
    [
        ((100, 200), (32, 64)),
        ((200, 100), (48, 24)),
        ((10, 5), (48, 24)),
        ((1000, 3), (48, 1)),
        ((48, 64), (48, 64)),
    ],
)
def test_evaluation_fits_the_picture_at_the_top_left(size, valid):
    picture = np.full((*size, 3), 200, dtype=np.uint8)
    canvas, info = EvalTransform(DataConfig(image_size=(48, 64)))(picture, "name")
    assert (canvas.shape, canvas.dtype) == ((3, 48, 64), torch.uint8)
    assert (info.id, info.size, info.valid) == ("name", size, valid)
    assert (canvas[:, : valid[0], : valid[1]] == 200).all()
    assert (canvas[:, valid[0] :] == MEAN).all()
    assert (canvas[:, :, valid[1] :] == MEAN).all()


def test_evaluation_keeps_what_fits_and_takes_every_form():
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    transform = EvalTransform(DataConfig(image_size=(48, 64)))
    expected = torch.from_numpy(pixels).permute(2, 0, 1)
    for form in (Image.fromarray(pixels), pixels, expected):
        assert torch.equal(transform(form)[0], expected)
    grey = Image.fromarray(pixels[..., 0])
    assert torch.equal(transform(grey)[0], expected[:1].expand(3, -1, -1))


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), torch.zeros(3, 4, 4), torch.zeros(1, 4, 4).byte(), "x.png"])
def test_evaluation_refuses_other_things(bad):
    with pytest.raises(UserError, match="must be a PIL image, a uint8 array"):
        EvalTransform(DataConfig())(bad)


def test_evaluation_resizes_with_antialiasing():
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 254
    canvas, _ = EvalTransform(DataConfig(image_size=16))(stripes)
    assert (canvas[:, :, 1:-1].int() - 127).abs().max() <= 1


def test_standing_still_equals_evaluation():
    config = DataConfig(image_size=(48, 64), augmentation=STILL)
    for kind in ("detection", "segmentation"):
        sample = scene(kind)
        image, _, info = transformed(sample, kind, config)
        canvas, expected = EvalTransform(config)(sample.image, sample.id)
        assert torch.equal(image, canvas)
        assert info == expected


@pytest.mark.parametrize("seed", range(8))
def test_boxes_are_the_bounds_of_masks_after_any_geometry(seed):
    config = DataConfig(image_size=(48, 64))
    image, target, info = transformed(scene(index=seed), "detection", config, seed)
    height, width = info.valid
    assert (image.shape, image.dtype) == ((3, 48, 64), torch.uint8)
    assert target["masks"].shape[1:] == (48, 64)
    assert target["masks"].dtype == torch.bool
    assert torch.equal(target["boxes"], mask_boxes(target["masks"]))
    assert not target["masks"][:, height:].any()
    assert not target["masks"][:, :, width:].any()
    assert (image[:, height:] == MEAN).all()
    assert (image[:, :, width:] == MEAN).all()
    assert len(target["labels"]) == len(target["boxes"])
    assert "crowd" not in target


@pytest.mark.parametrize("seed", range(8))
def test_picture_masks_boxes_and_labels_move_together(seed):
    """Draw the labels into the image, and find them there again after the move."""
    config = DataConfig(image_size=(48, 64), mean=(0, 0, 0))
    mask = torch.zeros(80, 120, dtype=torch.bool)
    mask[20:60, 30:90] = True
    picture = Image.fromarray((mask[..., None].expand(-1, -1, 3).numpy() * 255).astype(np.uint8))
    target = {
        "boxes": torch.tensor([[30.0, 20.0, 90.0, 60.0]]),
        "labels": torch.tensor([4]),
        "crowd": torch.tensor([False]),
    }
    masked = Sample(id=1, image=picture, target=target | {"masks": ObjectMasks.of(mask[None])})
    image, moved, _ = transformed(masked, "detection", config, seed)
    bright = image[0] > 127
    assert moved["labels"].tolist() == [4]
    assert (moved["masks"][0] != bright).float().mean() < 0.03

    _, boxes_only, _ = transformed(Sample(id=1, image=picture, target=target), "detection", config, seed)
    assert (boxes_only["boxes"] - moved["boxes"]).abs().max() <= 1.0

    labelled = Sample(id=1, image=picture, target=mask.long())
    image, labels, info = transformed(labelled, "segmentation", config, seed)
    covered = torch.zeros(48, 64, dtype=torch.bool)
    covered[: info.valid[0], : info.valid[1]] = True
    assert (labels[~covered] == IGNORE).all()
    assert ((labels == 1) != (image[0] > 127))[covered].float().mean() < 0.03


def test_halving_labels_does_not_shift_them():
    """Nearest neighbours under the centre: a symmetric map stays symmetric."""
    labels = torch.zeros(60, 60, dtype=torch.uint8)
    labels[16:44, 16:44] = 1
    sample = Sample(id=1, image=Image.new("RGB", (60, 60)), target=labels)
    config = DataConfig(image_size=20, augmentation=STILL)
    _, moved, _ = transformed(sample, "segmentation", config)
    assert torch.equal(moved, moved.flip(0))
    assert torch.equal(moved, moved.flip(1))
    assert moved.sum() == 100


def test_a_flip_mirrors_everything():
    def run(hflip, kind):
        config = DataConfig(image_size=(80, 120), augmentation=AugmentationConfig(hflip=hflip, scale=(1, 1)))
        return transformed(scene(kind), kind, config)

    (image, target, _), (mirrored, other, _) = run(0, "detection"), run(1, "detection")
    assert torch.equal(mirrored, F.horizontal_flip(image))
    assert torch.equal(other["masks"], target["masks"].flip(-1))
    assert torch.equal(
        other["boxes"],
        torch.tensor([120.0, 0, 120, 0]) + target["boxes"][:, [2, 1, 0, 3]] * torch.tensor([-1.0, 1, -1, 1]),
    )
    assert torch.equal(run(1, "segmentation")[1], run(0, "segmentation")[1].flip(-1))


def test_crowds_empty_boxes_and_what_is_cropped_away_are_dropped():
    boxes = torch.tensor([[0.0, 0, 20, 20], [5, 5, 5, 30], [0, 0, 60, 60], [90, 90, 99, 99], [-0.0, 10, 0.3, 10.3]])
    target = {
        "boxes": boxes,
        "labels": torch.arange(5),
        "crowd": torch.tensor([False, False, True, False, False]),
    }
    sample = Sample(id=1, image=Image.new("RGB", (100, 100)), target=target)
    _, moved, _ = transformed(sample, "detection", DataConfig(image_size=100, augmentation=STILL))
    assert moved["labels"].tolist() == [0, 3]
    zoomed = AugmentationConfig(hflip=0, scale=(2, 2))
    seen = [
        transformed(sample, "detection", DataConfig(image_size=100, augmentation=zoomed), seed)[1] for seed in range(20)
    ]
    kept = {tuple(s["labels"].tolist()) for s in seen}
    assert {(0,), (3,), ()} <= kept
    for s in seen:
        sides = s["boxes"][:, 2:] - s["boxes"][:, :2]
        assert ((sides >= 1) & (sides <= 40)).all()
        assert ((s["boxes"] >= 0) & (s["boxes"] <= 100)).all()


def test_an_object_of_which_little_is_left_is_dropped():
    target = {
        "boxes": torch.tensor([[0.0, 0, 100, 100]]),
        "labels": torch.tensor([1]),
        "crowd": torch.tensor([False]),
    }
    sample = Sample(id=1, image=Image.new("RGB", (100, 100)), target=target)

    def counts(factor):
        zoomed = AugmentationConfig(hflip=0, scale=(factor, factor))
        config = DataConfig(image_size=100, augmentation=zoomed)
        return {len(transformed(sample, "detection", config, seed)[1]["boxes"]) for seed in range(5)}

    assert counts(3.0) == {1}  # a ninth of it is left
    assert counts(3.5) == {0}  # a twelfth


def test_a_picture_without_objects_stays():
    target = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "crowd": torch.zeros(0, dtype=torch.bool),
        "masks": ObjectMasks((30, 50), []),
    }
    sample = Sample(id=1, image=Image.new("RGB", (50, 30)), target=target)
    for seed in range(4):
        _, moved, _ = transformed(sample, "detection", DataConfig(image_size=64), seed)
        assert moved["boxes"].shape == (0, 4)
        assert moved["masks"].shape == (0, 64, 64)


def test_scale_draws_the_range_evenly():
    config = DataConfig(image_size=100, augmentation=AugmentationConfig(scale=(0.5, 1.0)))
    sample = Sample(id=1, image=Image.new("RGB", (200, 200)), target=torch.zeros(200, 200, dtype=torch.uint8))
    heights = [transformed(sample, "segmentation", config, seed)[2].valid[0] for seed in range(60)]
    assert 50 <= min(heights) < 56
    assert 94 < max(heights) <= 100


def test_color_jitter_changes_the_picture_but_not_the_padding():
    sample = scene("segmentation", size=(40, 120))

    def run(strength, seed=0):
        augmentation = AugmentationConfig(hflip=0, scale=(1, 1), color_jitter=strength)
        return transformed(sample, "segmentation", DataConfig(image_size=60, augmentation=augmentation), seed)[0]

    assert not torch.equal(run(0.5)[:, :20], run(0)[:, :20])
    assert not torch.equal(run(0.5, 1)[:, :20], run(0.5)[:, :20])
    assert (run(0.5)[:, 20:] == MEAN).all()


def test_classification_gives_bytes_on_the_canvas():
    config = DataConfig(image_size=(48, 64), augmentation=AugmentationConfig(erasing=1.0))
    image, target, info = transformed(scene("classification"), "classification", config)
    assert (image.shape, image.dtype) == ((3, 48, 64), torch.uint8)
    assert image.min() < image.max()
    assert target.dtype == torch.int64
    assert (info.size, info.valid) == ((80, 120), (48, 64))


def test_classification_erases_around_the_mean_colour():
    augmentation = AugmentationConfig(erasing=1.0, auto_augment=None, hflip=0)
    white = Sample(id=1, image=Image.new("RGB", (64, 64), (255, 255, 255)), target=0)
    erased = torch.cat(
        [
            image[:, (image < 255).any(dim=0)] / 255
            for image, _, _ in (
                transformed(white, "classification", DataConfig(augmentation=augmentation), seed) for seed in range(10)
            )
        ],
        dim=1,
    )
    assert erased.shape[1] > 1000
    assert (erased.mean(dim=1) - torch.tensor([0.485, 0.456, 0.406])).abs().max() < 0.03
    assert (erased.std(dim=1) - torch.tensor([0.229, 0.224, 0.225])).abs().max() < 0.03


def test_classification_without_augmentation_is_the_picture():
    augmentation = AugmentationConfig(erasing=0, auto_augment=None, hflip=0, crop_scale=1.0)
    sample = scene("classification", size=(64, 64))
    plain = [transformed(sample, "classification", DataConfig(augmentation=augmentation), seed)[0] for seed in range(6)]
    assert any(torch.equal(image, F.pil_to_tensor(sample.image)) for image in plain)


@pytest.mark.parametrize("size", [(375, 500), (40, 64), (1200, 900)])
def test_classification_crops_as_timm_does_to_within_three_grey_levels(size):
    augmentation = AugmentationConfig(auto_augment=None, erasing=0)
    config = DataConfig(image_size=(96, 128), augmentation=augmentation)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    sample = Sample(id=1, image=Image.fromarray(pixels), target=0)
    theirs = create_transform(
        (3, 96, 128), is_training=True, color_jitter=None, interpolation="random", separate=True, scale=(0.08, 1)
    )[0]
    for seed in range(8):  # either interpolation, with and without a flip
        image = transformed(sample, "classification", config, seed)[0]
        with seeded("test", seed):
            expected = F.pil_to_tensor(theirs(sample.image))
        differences = (image.int() - expected.int()).abs()
        assert differences.max() <= 3
        assert differences.float().mean() < 0.05


def test_an_unknown_policy_is_named():
    with pytest.raises(UserError, match="policy of timm's, but is 'rnad-m9'"):
        TrainTransform(
            DataConfig(augmentation=AugmentationConfig(auto_augment="rnad-m9")), TARGETS.get("classification")
        )


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_fit_size_never_passes_the_scaled_canvas(factor):
    for size in ((7, 13), (480, 640), (1, 999), (333, 500)):
        height, width = fit_size(size, (224, 320), factor)
        assert 1 <= height <= 224 * factor
        assert 1 <= width <= 320 * factor
        assert height == 224 * factor or width == 320 * factor
