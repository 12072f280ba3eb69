"""Token labels: files, and what training images do to them."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from nasmvt.config import parse
from nasmvt.data import DataConfig, open_dataset
from nasmvt.data.loader import TrainLoader
from nasmvt.data.token_labels import label_file
from nasmvt.data.types import DataInfo
from nasmvt.errors import UserError
from nasmvt.tasks import TaskConfig
from nasmvt.tasks.draw import draw_targets
from tests.data.writers import write_picture

PLAIN = {"mixup": 0, "cutmix": 0, "auto_augment": None, "erasing": 0, "hflip": 0, "crop_scale": 1.0}
NAMES = ("ant/a.1.png", "ant/b.png", "bee/c.png")


def stored(number: int) -> torch.Tensor:
    """A map of 4 x 6 cells whose logits tell row and column."""
    cells = torch.arange(24.0).view(1, 4, 6) + 100 * number
    return torch.stack((cells.expand(2, 4, 6), torch.tensor([0.0, 1.0]).view(2, 1, 1).expand(2, 4, 6))).half()


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(NAMES):
        write_picture(tmp_path / "images/train" / name, (40, 60))
        path = tmp_path / "labels" / label_file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(stored(number), path)
    return tmp_path


def loader(root, seed=0, batch=3, **augmentation):
    config = DataConfig(
        format="imagefolder",
        root=root / "images",
        token_labels=root / "labels",
        image_size=32,
        augmentation={**PLAIN, **augmentation},
    )
    dataset = open_dataset(config, "classification", "train", 0)
    return TrainLoader(dataset, range(3), config, batch, seed)


def test_names_are_cut_at_the_first_dot(root):
    assert label_file("train/ant/a.1.png") == "ant/a.pt"
    targets = loader(root).batch(0).targets
    assert targets["maps"].shape == (3, 2, 2, 4, 6)
    assert targets["maps"].dtype == torch.float16
    numbers = (targets["maps"][:, 0, 0, 0, 0] / 100).long().tolist()
    assert sorted(numbers) == [0, 1, 2]
    assert targets["labels"].tolist() == [0 if number < 2 else 1 for number in numbers]
    drawn = draw_targets(loader(root).batch(0), DataInfo(kind="classification", classes=("ant", "bee")))
    assert drawn.width > 32


def test_a_flip_mirrors_the_map_and_the_crop_is_that_of_the_image(root):
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    image[:, :30, 0] = 255  # the left half is red
    for name in NAMES:
        Image.fromarray(image).save(root / "images/train" / name)
    seen = set()
    for step in range(8):
        batch = loader(root, hflip=0.5, crop_scale=0.9).batch(step)
        for picture, cells, crop in zip(batch.images, batch.targets["maps"], batch.targets["crops"], strict=True):
            mirrored = bool(cells[0, 0, 0, 0] > cells[0, 0, 0, -1])
            seen.add(mirrored)
            assert bool(picture[0, :, 0].float().mean() < 127) is mirrored
            border = float((picture[0] > 0.5).float().mean(0).argmin() if not mirrored else 0)
            top, left, tall, wide = crop.tolist()
            assert 0 <= top <= top + tall <= 1 + 1e-6
            if not mirrored:
                assert border / 32 == pytest.approx((0.5 - left) / wide, abs=0.06)
    assert seen == {False, True}


def test_what_moves_the_image_moves_the_map_and_colours_do_not(root):
    plain = {int(m[0, 0, 0, 0]) // 100: m for m in loader(root).batch(0).targets["maps"]}
    for policy, moves in (("rand-m9-p1.0-mstd0.5-inc1", True), ("rand-m9-n0", False)):
        changed = uncovered = 0
        for step in range(10):
            for found in loader(root, auto_augment=policy).batch(step).targets["maps"]:
                number = int(found[0].max()) // 100
                uncovered += int((found == 0).flatten(0, 2).all(0).sum()) - (number == 0)
                changed += not torch.equal(found, plain[number])
        assert bool(changed) is moves
        assert (uncovered > 0) is moves


def test_image_and_map_are_rotated_alike(root, monkeypatch):
    """A rotation by half a turn, the only operation, reverses both."""
    monkeypatch.setattr("timm.data.auto_augment._RAND_INCREASING_TRANSFORMS", ["Rotate"])
    monkeypatch.setitem(
        __import__("timm.data.auto_augment", fromlist=["x"]).LEVEL_TO_ARG, "Rotate", lambda level, params: (180.0,)
    )
    plain = {int(m[0, 0, 0, 0]) // 100: m for m in loader(root).batch(0).targets["maps"]}
    for found in loader(root, auto_augment="rand-m9-n1-p1.0-inc1").batch(0).targets["maps"]:
        assert torch.equal(found, plain[int(found[0].max()) // 100].flip(-1, -2))


def test_batches_are_a_function_of_the_step(root):
    settings = {"auto_augment": "rand-m9-mstd0.5-inc1", "hflip": 0.5, "erasing": 0.5, "color_jitter": 0.4}
    one, other = loader(root, **settings), loader(root, **settings)
    other.batch(3)
    random.seed(5)
    a, b = one.batch(7), other.batch(7)
    assert torch.equal(a.images, b.images)
    assert all(torch.equal(a.targets[key], b.targets[key]) for key in a.targets)


def test_missing_and_wrong_files_are_refused(root):
    (root / "labels/ant/b.pt").unlink()
    with pytest.raises(UserError, match=r"needs a file of token labels in .*labels, but ant/b\.pt is missing: add"):
        loader(root)
    for content, message in (
        (torch.zeros(3), r"b\.pt must hold a tensor \(2, classes, rows, columns\), but holds a tensor \(3,\)"),
        ({"x": 1}, r"but holds a dict"),
        (stored(0)[:, :, :2], r"maps of one size, but hold \(2, 2, 2, 6\), \(2, 2, 4, 6\): convert"),
        (stored(0) + 1, r"must be of the classes 0\.\.1, but are of 0\.\.2: use"),
    ):
        torch.save(content, root / "labels/ant/b.pt")
        with pytest.raises(UserError, match=message):
            loader(root).batch(0)
    (root / "labels/ant/b.pt").write_bytes(b"no tensor")
    with pytest.raises(UserError, match=r"b\.pt must be a file that torch\.save wrote"):
        loader(root).batch(0)
    with pytest.raises(UserError, match="augmented by RandAugment, but 'auto_augment' is 'original'"):
        loader(root, auto_augment="original")


def test_the_digest_tells_other_labels(root):
    before = loader(root)._dataset.digest()
    torch.save(torch.cat((stored(0), stored(0)), 1), root / "labels/ant/b.pt")
    assert loader(root)._dataset.digest() != before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"head": {"type": "linear"}}, "token labels train a head that reads them, 'class_attention', but"),
        ({"data": {"augmentation": {"mixup": 0.8}}}, "mixup or cutmix is on: set augmentation.mixup"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values, message):
    data = {"token_labels": "labels", "augmentation": {"mixup": 0, "cutmix": 0}, **values.get("data", {})}
    with pytest.raises(UserError, match=message):
        parse(TaskConfig, {"kind": "classification", "head": {"type": "class_attention"}, **values, "data": data}, "t")
