"""How label maps of other tools say their classes: values, colours, palettes, suffixes."""

import numpy as np
import pytest
from PIL import Image

from nasmvt.config import parse
from nasmvt.data import IGNORE, DataConfig, DataInfo, UnreadableImage, open_dataset
from nasmvt.errors import UserError
from tests.data.writers import write_labels, write_picture

RED, BLUE, BLACK = (200, 0, 0), (0, 0, 255), (0, 0, 0)
OBJECT = {0: "background", 255: "object"}


def opened(root, pixels, split="train", known=None, **more):
    """Open one image of 2x3 pixels with a label map of these values or colours."""
    write_picture(root / "images" / split / "x.png", (2, 3))
    write_labels(root / "annotations" / split / "x.png", np.array(pixels, dtype=np.uint8))
    config = parse(DataConfig, {"format": "ade20k", "root": str(root), **more}, "my.yaml")
    return open_dataset(config, "segmentation", split, 0, known)


def values(dataset):
    return dataset.info.classes, dataset[0].target.tolist()


def test_a_binary_mask_needs_a_word(tmp_path):
    mask = [[0, 255, 255], [0, 0, 0]]
    with pytest.raises(UserError, match=r"the labels must be 1, 2, .* are 0, 255: name .* \{0: background, 255: obj"):
        opened(tmp_path, mask)
    (tmp_path / "classes.txt").write_text("background\nobject\n")
    with pytest.raises(UserError, match=r"x\.png .* hold only ignored values \(0, 255\): .* \{0: background, 255: obj"):
        opened(tmp_path, mask)
    classes, target = values(opened(tmp_path, mask, labels=OBJECT))
    assert (classes, target) == (("background", "object"), [[0, 1, 1], [0, 0, 0]])
    assert DataConfig.model_validate_json(DataConfig(labels=OBJECT).model_dump_json()).labels == OBJECT


@pytest.mark.parametrize("named", [False, True])
def test_255_is_ignored(tmp_path, named):
    if named:
        (tmp_path / "classes.txt").write_text("class_1\nclass_2\nclass_3\n")
    classes, target = values(opened(tmp_path, [[1, 2, 3], [0, 255, 2]]))
    assert (classes, target) == (("class_1", "class_2", "class_3"), [[0, 1, 2], [IGNORE, IGNORE, 1]])


def test_255_classes_leave_no_value_to_ignore(tmp_path):
    dataset = opened(tmp_path, [[1, 255, 0]] * 2, classes=[f"c{n}" for n in range(255)])
    assert dataset[0].target.tolist() == [[0, 254, IGNORE]] * 2


@pytest.mark.parametrize(
    ("ignore", "expected"),
    [
        ([], [[1, 2, 3], [0, 4, 2]]),
        ([4], [[1, 2, 3], [0, IGNORE, 2]]),
        ([0, 3], [[0, 1, IGNORE], [IGNORE, 3, 1]]),
        ([0, "b"], [[0, IGNORE, 1], [IGNORE, 2, IGNORE]]),
    ],
)
def test_what_is_ignored_can_be_said(tmp_path, ignore, expected):
    names = ["a", "b", "c", "d", "e"][: 5 if 0 not in ignore else 4]
    dataset = opened(tmp_path, [[1, 2, 3], [0, 4, 2]], classes=names, ignore=ignore)
    assert dataset[0].target.tolist() == expected
    assert dataset.info.classes == tuple(name for name in names if name not in ignore)


def test_several_values_may_be_one_class(tmp_path):
    dataset = opened(tmp_path, [[7, 8, 11], [255, 7, 7]], labels={7: "road", 8: "road", 11: "house"})
    assert values(dataset) == (("road", "house"), [[0, 0, 1], [IGNORE, 0, 0]])


COLOURS = [[RED, BLUE, BLACK], [RED, RED, BLUE]]


@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        "sky 0 0 255\ncar 200 0 0\nvoid 0 0 0\n",
        "0 0 255\tsky\n200 0 0\tcar\n0,0,0,void\n",
        "name, r, g, b\nsky, 0, 0, 255\ncar, 200, 0, 0\nvoid,0,0,0\n",
        "# label:color_rgb:parts:actions\nsky:0,0,255::\ncar:200,0,0::\nvoid:0,0,0::\n",
    ],
)
def test_colours_from_a_file(tmp_path, content, palette):
    (tmp_path / "classes.txt").write_text(content)
    opened(tmp_path, COLOURS)
    if palette:
        path = tmp_path / "annotations/train/x.png"
        Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE).save(path)
        dataset = open_dataset(DataConfig(format="ade20k", root=tmp_path), "segmentation", "train", 0)
    else:
        dataset = opened(tmp_path, COLOURS)
    assert values(dataset) == (("sky", "car", "void"), [[1, 0, 2], [1, 1, 0]])
    config = DataConfig(format="ade20k", root=tmp_path, ignore=("void",))
    ignoring = open_dataset(config, "segmentation", "train", 0)
    assert values(ignoring) == (("sky", "car"), [[1, 0, IGNORE], [1, 1, 0]])


def test_colours_from_the_settings(tmp_path):
    meaning = {"#0000ff": "sky", "#C80000": "car"}
    with pytest.raises(UserError, match=r"x\.png holds the colour #000000, which is neither one of the 2"):
        opened(tmp_path, COLOURS, labels=meaning)
    dataset = opened(tmp_path, COLOURS, labels=meaning, ignore=["#000000"], classes=["car", "sky"])
    assert values(dataset) == (("car", "sky"), [[0, 1, IGNORE], [0, 0, 1]])


@pytest.mark.parametrize(
    ("more", "fragment"),
    [
        ({"labels": {"red": "car"}}, "a number, or a colour such as \"#ff0000\", but not 'red'"),
        ({"labels": {70000: "car"}}, "lies in 0..65535"),
        ({"labels": {0: "a", "#ff0000": "b"}}, "to values, or to colours"),
        ({"ignore": ["#ff"]}, "but not '#ff'"),
        ({"ignore": ["void"], "classes": ["a", "b"]}, "may name values, colours and the classes a, b, but names void"),
        ({"labels": {0: "a", 1: "a"}}, "needs two classes or more"),
        ({"classes": ["a"]}, "needs two classes or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, more, fragment):
    with pytest.raises(UserError) as error:
        opened(tmp_path, [[0, 0, 1]] * 2, **more)
    assert fragment in str(error.value)


def test_values_far_apart_are_not_counted_as_classes(tmp_path):
    with pytest.raises(UserError, match=r"must be 1, 2, .* are 0, 64, 128"):
        opened(tmp_path, [[0, 64, 128]] * 2)


def test_suffixes(tmp_path):
    for split in ("train", "val"):
        write_picture(tmp_path / "images" / split / "a_leftImg8bit.png", (2, 3))
        write_picture(tmp_path / "images" / split / "b.png", (2, 3))
        write_labels(tmp_path / "annotations" / split / "a_labelIds.png", np.array([[1, 2, 0]] * 2, dtype=np.uint8))
    config = DataConfig(format="ade20k", root=tmp_path, image_suffix="_leftImg8bit", mask_suffix="_labelIds.png")
    dataset = open_dataset(config, "segmentation", "val", 0)
    assert [dataset[i].id for i in range(len(dataset))] == ["images/val/a_leftImg8bit.png"]
    assert list(dataset.left_out["ending"]) == ["b.png"]
    with pytest.raises(UserError, match="set 'mask_suffix'"):
        open_dataset(config.model_copy(update={"mask_suffix": ".png"}), "segmentation", "val", 0)


@pytest.mark.parametrize("annotated", ["upright", "stored", None])
def test_photos_are_upright_and_their_labels_with_them(tmp_path, annotated):
    opened(tmp_path, [[1, 2, 3], [0, 4, 2]])
    path = tmp_path / "images/train/x.png"
    exif = Image.Exif()
    exif[0x0112] = 3 if annotated else 6  # upside down, or on its side
    Image.open(path).copy().save(path, exif=exif)
    sample = open_dataset(
        DataConfig(format="ade20k", root=tmp_path, orientation=annotated), "segmentation", "train", 0
    )[0]
    expected = {"upright": [[0, 1, 2], [IGNORE, 3, 1]], "stored": [[1, 3, IGNORE], [2, 1, 0]]}
    turned = [[IGNORE, 0], [3, 1], [1, 2]]
    assert sample.target.tolist() == expected.get(annotated, turned)
    assert sample.target.shape == (sample.image.height, sample.image.width)


def test_grey_saved_as_colours_and_whole_floats_are_labels(tmp_path):
    assert opened(tmp_path, [[[1] * 3, [2] * 3, [0] * 3]] * 2)[0].target.tolist() == [[0, 1, IGNORE]] * 2
    labels = np.array([[1.0, 2.0, 0.0]] * 2, dtype=np.float32)
    Image.fromarray(labels).save(tmp_path / "annotations/train/x.tif")
    config = DataConfig(format="ade20k", root=tmp_path, mask_suffix=".tif")
    assert open_dataset(config, "segmentation", "train", 0)[0].target.tolist() == [[0, 1, IGNORE]] * 2


def test_val_opens_without_train_where_the_model_knows_its_classes(tmp_path):
    known = DataInfo(kind="segmentation", classes=("class_1", "class_2", "class_3"))
    dataset = opened(tmp_path, [[1, 2, 0]] * 2, "val", known)
    assert values(dataset) == (known.classes, [[0, 1, IGNORE]] * 2)


@pytest.mark.parametrize("named", [False, True])
def test_label_maps_that_are_damaged_are_skipped_if_asked(tmp_path, named):
    opened(tmp_path, [[1, 2, 0]] * 2)
    write_picture(tmp_path / "images/train/y.png", (2, 3))
    (tmp_path / "annotations/train/y.png").write_bytes(b"\x89PNG")
    if named:
        (tmp_path / "classes.txt").write_text("class_1\nclass_2\n")
    config = DataConfig(format="ade20k", root=tmp_path)
    with pytest.raises(UnreadableImage, match=r"the label map .*y\.png can't be decoded"):
        open_dataset(config, "segmentation", "train", 0)[1]
    skipping = open_dataset(config.model_copy(update={"skip_unreadable": True}), "segmentation", "train", 0)
    assert skipping.info.classes == ("class_1", "class_2")
    with pytest.raises(UnreadableImage, match=r"y\.png"):
        skipping[1]
