import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as reference

from nasmvt.data import DataConfig, DataInfo, open_dataset
from nasmvt.errors import UserError
from tests.data.writers import CATEGORIES, annotation, write_coco, write_picture

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools

POLYGONS = [[2.0, 3.0, 15.5, 3.0, 15.5, 12.2, 2.0, 9.0], [20.0, 1.0, 28.0, 1.0, 24.0, 9.0]]
BOX = [2, 3, 10, 5]


def runs(compressed):
    mask = np.zeros((20, 30), dtype=np.uint8, order="F")
    mask[4:11, 6:20] = 1
    mask[8:15, 18:25] = 1
    if compressed:
        encoded = reference.encode(mask)
        return mask, {"size": [20, 30], "counts": encoded["counts"].decode()}
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    return mask, {"size": [20, 30], "counts": np.diff([0, *edges, flat.size]).tolist()}


def opened(root, split="train", **more):
    return open_dataset(DataConfig(format="coco", root=root, **more), "detection", split, 0)


def test_gaps_crowds_and_pictures_without_objects(tmp_path):
    _, crowd = runs(compressed=False)
    write_coco(
        tmp_path,
        "train",
        [
            annotation(1, 1, 7, BOX, segmentation=POLYGONS),
            annotation(2, 1, 2, [25, 15, 10, 10], segmentation=crowd, iscrowd=1),
        ],
    )
    dataset = opened(tmp_path)
    assert dataset.info.classes == ("cat", "dog")
    assert dataset.info.has_masks
    first, second = dataset[0], dataset[1]
    assert (first.id, second.id) == (1, 2)
    assert first.target["labels"].tolist() == [1, 0]
    assert first.target["crowd"].tolist() == [False, True]
    assert first.target["boxes"].tolist() == [[2, 3, 12, 8], [25, 15, 30, 20]]
    assert {name: len(value) for name, value in second.target.items()} == dict.fromkeys(first.target, 0)
    assert second.target["boxes"].shape == (0, 4)
    assert second.target["masks"].dense().shape == (0, 20, 30)


@pytest.mark.parametrize("compressed", [False, True])
def test_run_lengths_are_decoded(tmp_path, compressed):
    mask, encoded = runs(compressed)
    write_coco(tmp_path, "train", [annotation(1, 1, 7, BOX, segmentation=encoded)])
    assert np.array_equal(opened(tmp_path)[0].target["masks"].dense()[0].numpy(), mask.astype(bool))


def test_polygons_are_drawn_as_pycocotools_draws_them(tmp_path):
    write_coco(tmp_path, "train", [annotation(1, 1, 7, BOX, segmentation=POLYGONS)])
    expected = reference.decode(reference.merge(reference.frPyObjects(POLYGONS, 20, 30))).astype(bool)
    masks = opened(tmp_path)[0].target["masks"].dense()
    assert masks.dtype == torch.bool
    assert np.array_equal(masks[0].numpy(), expected)


@pytest.mark.parametrize("nothing", [[], None, [[]], {"size": [20, 30], "counts": []}])
def test_masks_for_some_objects_are_not_used_and_that_is_said(tmp_path, nothing, caplog):
    write_coco(
        tmp_path,
        "train",
        [annotation(1, 1, 7, BOX, segmentation=POLYGONS), annotation(2, 1, 7, BOX, segmentation=nothing)],
    )
    dataset = opened(tmp_path)
    assert not dataset.info.has_masks
    assert "masks" not in dataset[0].target
    assert "only boxes are used, not masks: 1 of 2 objects of" in caplog.text
    caplog.clear()
    assert not opened(tmp_path, masks=False).info.has_masks
    assert caplog.text == ""
    with pytest.raises(UserError, match=r"1 of 2 objects of .* have no segmentation .*'masks' to false"):
        opened(tmp_path, masks=True)


def test_boxes_only(tmp_path, caplog):
    write_coco(tmp_path, "train", [annotation(1, 1, 7, BOX), annotation(2, 1, 7, BOX, segmentation=[])])
    assert not opened(tmp_path).info.has_masks
    assert caplog.text == ""


@pytest.mark.parametrize("masks", [True, False])
def test_a_model_says_whether_masks_are_read(tmp_path, masks):
    write_coco(tmp_path, "val", [annotation(1, 1, 7, BOX, segmentation=POLYGONS)])
    known = DataInfo(kind="detection", classes=("cat", "dog"), has_masks=masks)
    dataset = open_dataset(DataConfig(format="coco", root=tmp_path), "detection", "val", 0, known)
    assert ("masks" in dataset[0].target) == masks
    assert dataset[0].target["labels"].tolist() == [1]


def test_boxes_need_no_mask_library_and_masks_ask_for_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    write_coco(tmp_path / "boxes", "train", [annotation(1, 1, 7, BOX)])
    assert len(opened(tmp_path / "boxes")[0].target["boxes"]) == 1
    write_coco(tmp_path / "masks", "train", [annotation(1, 1, 7, BOX, segmentation=POLYGONS)])
    with pytest.raises(UserError, match="pip install faster-coco-eval"):
        opened(tmp_path / "masks")[0].target["masks"].dense()


def test_boxes_are_clipped_and_empty_ones_kept_for_evaluation(tmp_path):
    boxes = [[-3, -2, 10, 10], [25, 15, 10, 10], [5, 5, 0, 4], [40, 5, 3, 3], [5, 5, -2, 4]]
    write_coco(tmp_path, "train", [annotation(n, 1, 7, box) for n, box in enumerate(boxes)])
    assert opened(tmp_path)[0].target["boxes"].tolist() == [
        [0, 0, 7, 8],
        [25, 15, 30, 20],
        [5, 5, 5, 9],
        [30, 5, 30, 8],
        [5, 5, 5, 9],
    ]


def test_masks_are_a_matter_of_the_training_split(tmp_path):
    write_coco(tmp_path, "train", [annotation(1, 1, 7, BOX)])
    write_coco(tmp_path, "val", [annotation(1, 1, 7, BOX, segmentation=POLYGONS)])
    assert not opened(tmp_path, "val").info.has_masks
    write_coco(tmp_path, "train", [annotation(1, 1, 7, BOX, segmentation=POLYGONS)])
    write_coco(tmp_path, "val", [annotation(1, 2, 7, BOX)])
    with pytest.raises(
        UserError,
        match=r"1 of 1 objects of .*val\.json have no segmentation .* image .*2\.png",
    ):
        opened(tmp_path, "val")


def test_a_crowd_without_a_mask_is_masked_by_its_box(tmp_path):
    write_coco(
        tmp_path,
        "train",
        [annotation(1, 1, 7, BOX, segmentation=POLYGONS), annotation(2, 1, 7, [1.5, 2, 3, 4], iscrowd=1)],
    )
    mask = opened(tmp_path)[0].target["masks"].dense()[1]
    assert mask.sum() == 4 * 4
    assert mask[2:6, 1:5].all()


def test_names_with_a_year_and_folders_are_found(tmp_path):
    for split in ("train2017", "val2017"):
        write_coco(tmp_path, split, [annotation(1, 1, 7, BOX)])
    assert len(opened(tmp_path)) == 2
    (tmp_path / "images/val2017").rename(tmp_path / "val2017")
    assert opened(tmp_path, "val")[0].image.size == (30, 20)
    write_coco(tmp_path, "train2014", [])
    with pytest.raises(UserError, match=r"instances_train2014\.json, instances_train2017\.json"):
        opened(tmp_path)
    assert len(opened(tmp_path, train_split="train2017")) == 2


def test_one_folder_for_all_pictures(tmp_path):
    write_coco(tmp_path, "train", [])
    for path in sorted((tmp_path / "images/train").iterdir()):
        path.rename(tmp_path / "images" / path.name)
    (tmp_path / "images/train").rmdir()
    assert opened(tmp_path)[1].id == 2


BAD = [
    ({"categories": []}, [], "names no categories"),
    ({"images": [{"id": 1, "file_name": "1.png", "width": 30}]}, [], "the image 1 has the height null"),
    ({"images": [{"id": 1, "file_name": "9.png", "width": 30, "height": 20}]}, [], "train/9.png: add them"),
    ({"images": [{"id": 1, "file_name": "1.png", "width": 30, "height": 20}] * 2}, [], "1 occurs twice"),
    ({"images": []}, [], "lists no images"),
    ({}, {}, "Expected `array`, got `object` - at `$.annotations`"),
    ({}, [annotation(5, 1, 3, BOX)], "the annotation 5 has the category_id 3, but 'categories' lists 2, 7"),
    ({}, [annotation(5, 8, 7, BOX)], "the annotation 5 has the image_id 8, but 'images' lists 1, 2"),
    (
        {},
        [{"id": 5, "image_id": 1, "category_id": 7}],
        "the annotation 5 has the bbox null, which",
    ),
    ({}, [annotation(5, 1, 7, [1, 2, 3])], "the annotation 5 has the bbox [1, 2, 3], which must"),
    ({}, [annotation(5, 1, 7, [1, 2, float("nan"), 3])], "the annotation 5 has the bbox [1, 2, 'NaN', 3], which must"),
    (
        {},
        [annotation(5, 1, 7, BOX, segmentation=[[1, 2, 3, 4]])],
        "the annotation 5 has the polygon [1.0, 2.0,",
    ),
    ({}, [annotation(5, 1, 7, BOX, segmentation={"size": [30, 20], "counts": "abc"})], "of size [30, 20]"),
    (
        {},
        [annotation(5, 1, 7, BOX, segmentation={"size": [20, 30], "counts": [5, 6]})],
        "add up to 11 and not",
    ),
]


@pytest.mark.parametrize(("replaced", "annotations", "fragment"), BAD, ids=[case[2] for case in BAD])
def test_a_bad_file_is_refused_by_name(tmp_path, replaced, annotations, fragment):
    write_coco(tmp_path, "train", annotations, **replaced)
    with pytest.raises(UserError, match=r"instances_train\.json") as error:
        opened(tmp_path)
    assert fragment in str(error.value)


@pytest.mark.parametrize("content", ["{", '{"images": []}', "[]"])
def test_malformed_json_is_refused_by_name(tmp_path, content):
    write_coco(tmp_path, "train", []).write_text(content)
    with pytest.raises(UserError, match=r"instances_train\.json"):
        opened(tmp_path)


def test_a_compressed_string_that_does_not_fit_is_refused_by_name(tmp_path):
    write_coco(tmp_path, "train", [annotation(1, 1, 7, BOX, segmentation={"size": [20, 30], "counts": "zz"})])
    with pytest.raises(UserError, match=r"instances_train\.json: the annotation 1 has .* run lengths"):
        opened(tmp_path)


def test_the_size_must_be_what_the_file_says(tmp_path):
    write_coco(tmp_path, "train", [])
    write_picture(tmp_path / "images/train/2.png", (21, 30))
    with pytest.raises(
        UserError, match=r"2\.png must have .*instances_train\.json states, but it is 30x21, and not 30x20"
    ):
        opened(tmp_path)[1]


@pytest.mark.parametrize(("stated", "setting"), [("stored", None), ("upright", None), ("stored", "upright")])
def test_photos_are_upright_and_their_objects_with_them(tmp_path, stated, setting):
    on_stored = stated == "stored" and setting is None
    box, polygon = (
        ([2, 3, 10, 5], [[2, 3, 12, 3, 12, 8, 2, 8]]) if on_stored else ([3, 2, 5, 10], [[3, 2, 8, 2, 8, 12]])
    )
    size = {"height": 20, "width": 30} if stated == "stored" else {"height": 30, "width": 20}
    record = {"id": 1, "file_name": "1.png", **size}
    write_coco(tmp_path, "train", [annotation(1, 1, 7, box, segmentation=polygon)], images=[record])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    path = tmp_path / "images/train/1.png"
    Image.open(path).copy().save(path, exif=exif)
    sample = opened(tmp_path, orientation=setting)[0]
    assert sample.image.size == (20, 30)
    assert np.array_equal(np.asarray(sample.image), np.rot90(np.asarray(Image.open(path)), -1))
    expected = [12, 2, 17, 12] if on_stored else [3, 2, 8, 12]
    assert sample.target["boxes"].tolist() == [expected]
    mask = sample.target["masks"].dense()
    assert mask.shape == (1, 30, 20)
    outside = mask.clone()
    outside[:, expected[1] : expected[3], expected[0] : expected[2]] = False
    assert mask.any()
    assert not outside.any()


def test_both_splits_have_the_same_categories(tmp_path):
    write_coco(tmp_path, "train", [])
    write_coco(tmp_path, "val", [], categories=[*CATEGORIES, {"id": 9, "name": "elk"}])
    with pytest.raises(UserError, match=r"_val\.json must be one of the training split \(cat, dog\), but elk is not"):
        opened(tmp_path, "val")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no annotation file .*instances_train\.json"):
        opened(tmp_path)
    write_coco(tmp_path, "train", [])
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"must lie in .*images/train, .*/train or .*images"):
        opened(tmp_path)


@pytest.mark.parametrize(("name", "masks"), [("det_pennfudan", True), ("det_nuts", True), ("det_bccd", False)])
def test_real_data(shared_data, name, masks):
    root = shared_data(name)
    dataset = opened(root, "val")
    content = json.loads((root / "annotations/instances_val.json").read_text())
    assert len(dataset) == len(content["images"])
    assert dataset.info.has_masks == masks
    sample = dataset[0]
    mine = [a for a in content["annotations"] if a["image_id"] == sample.id]
    assert len(sample.target["boxes"]) == len(mine) > 0
    if masks:
        height, width = sample.image.height, sample.image.width
        for mask, record in zip(sample.target["masks"].dense(), mine, strict=True):
            expected = reference.merge(reference.frPyObjects(record["segmentation"], height, width))
            assert np.array_equal(mask.numpy(), reference.decode(expected).astype(bool))
