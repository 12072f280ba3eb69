"""COCO files as the tools of this world export them: other types, names, separators, encodings."""

import json

import pytest

from nasmvt.data import DataConfig, open_dataset
from nasmvt.errors import UserError
from tests.data.writers import annotation, write_coco, write_picture

BOX = [2, 3, 10, 5]


def opened(root, split="train", **more):
    return open_dataset(DataConfig(format="coco", root=root, **more), "detection", split, 0)


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("value", "crowd"), [("0", False), ("1", True), (0.0, False), (True, True), (None, False), ("false", False)]
)
def test_flags_of_any_type(tmp_path, value, crowd):
    write_coco(tmp_path, "train", [annotation(1, 1, 7, BOX) | {"iscrowd": value}])
    assert opened(tmp_path)[0].target["crowd"].tolist() == [crowd]


def test_a_missing_flag_is_no_crowd(tmp_path):
    item = annotation(1, 1, 7, BOX)
    del item["iscrowd"]
    write_coco(tmp_path, "train", [item])
    assert opened(tmp_path)[0].target["crowd"].tolist() == [False]


@pytest.mark.parametrize("value", [2, "yes", [0]])
def test_a_flag_that_is_none_is_refused(tmp_path, value):
    write_coco(tmp_path, "train", [annotation("a7", 1, 7, BOX) | {"iscrowd": value}])
    with pytest.raises(UserError, match=r"instances_train\.json: the annotation a7 has the iscrowd .*must be 0 or 1"):
        opened(tmp_path)


def test_numbers_as_text(tmp_path):
    categories = [{"id": "0", "name": "cat"}, {"id": 1.0, "name": "dog"}]
    image = {"id": "1", "file_name": "1.png", "height": "20", "width": 30.0}
    item = annotation(1, 1, "1", ["2", 3, 10.0, "5"])
    write_coco(tmp_path, "train", [item], categories=categories, images=[image])
    sample = opened(tmp_path)[0]
    assert (sample.id, sample.target["labels"].tolist()) == (1, [1])
    assert sample.target["boxes"].tolist() == [[2, 3, 12, 8]]


def test_ids_that_are_text_stay_text(tmp_path):
    image = {"id": "0001", "file_name": "1.png", "height": 20, "width": 30}
    write_coco(tmp_path, "train", [annotation(1, "0001", 7, BOX)], images=[image])
    assert opened(tmp_path)[0].id == "0001"


@pytest.mark.parametrize(
    ("categories", "fragment"),
    [
        ([{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}], "1 is 'cat' and 'dog': renumber"),
        ([{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}], "1 and 2 are both 'cat': merge or rename"),
        ([{"id": "one", "name": "cat"}], "category number 1 has the id 'one', not a whole number"),
        ([{"id": 1, "name": 5}], "the category 1 must have a name, but has 5"),
        ([{"id": 1}], "the category 1 must have a name, but has null"),
    ],
)
def test_categories_that_contradict_are_refused(tmp_path, categories, fragment):
    write_coco(tmp_path, "train", [], categories=categories)
    with pytest.raises(UserError, match=r"instances_train\.json: ") as error:
        opened(tmp_path)
    assert fragment in str(error.value)


def test_a_category_that_stands_twice_is_one(tmp_path):
    categories = [{"id": 1, "name": "cat"}, {"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    write_coco(tmp_path, "train", [], categories=categories)
    assert opened(tmp_path).info.classes == ("cat", "dog")


def test_classes_are_matched_by_name_and_val_may_lack_some(tmp_path):
    write_coco(tmp_path, "train", [])
    write_coco(tmp_path, "val", [annotation(1, 1, 1, BOX)], categories=[{"id": 1, "name": "dog"}])
    val = opened(tmp_path, "val")
    assert val.info.classes == ("cat", "dog")
    assert val[0].target["labels"].tolist() == [1]


def test_classes_of_the_settings_order_or_rename(tmp_path):
    write_coco(tmp_path, "train", [annotation(1, 1, 7, BOX)])  # a dog, the second of cat and dog
    for classes, label in ((("dog", "cat"), 0), (("Katze", "Hund"), 1)):
        dataset = opened(tmp_path, classes=classes)
        assert (dataset.info.classes, dataset[0].target["labels"].tolist()) == (classes, [label])
    with pytest.raises(UserError, match="dog is found there at another position"):
        opened(tmp_path, classes=("dog", "Katze"))


@pytest.mark.parametrize(
    "name",
    ["images/train/1.png", "images\\train\\1.png", "C:\\Users\\me\\data\\1.png", "/home/other/images/1.png", "./1.png"],
)
def test_file_names_of_other_machines(tmp_path, name):
    image = {"id": 1, "file_name": name, "height": 20, "width": 30}
    write_coco(tmp_path, "train", [], images=[image])
    write_picture(tmp_path / "images/train/1.png")
    assert opened(tmp_path)[0].image.size == (30, 20)


def test_annotations_among_the_images_of_each_split(tmp_path):
    for split, folder in (("train", "train"), ("val", "valid")):
        made = write_coco(tmp_path, split, [annotation(1, 1, 7, BOX)])
        (tmp_path / "images" / split).rename(tmp_path / folder)
        made.rename(tmp_path / folder / "_annotations.coco.json")
    for split, folder in (("train", "train"), ("val", "valid")):
        data = opened(tmp_path, split)
        assert data[0].target["boxes"].tolist() == [[2, 3, 12, 8]]
        assert {path.parent for path in data._files} == {tmp_path / folder}


@pytest.mark.parametrize("numbers", [[2, 3, 12, 3, 12, 8], ["2", 3], [[2, 3, 12, 3, 12, 8]]])
def test_one_polygon_needs_no_list_of_polygons(tmp_path, numbers):
    write_coco(tmp_path, "train", [annotation(1, 1, 7, BOX, segmentation=numbers)])
    if numbers == ["2", 3]:
        with pytest.raises(UserError, match="neither a list of polygons nor run lengths"):
            opened(tmp_path)
        return
    masks = opened(tmp_path)[0].target["masks"].dense()
    assert masks[0, 3:8, 2:12].float().mean() > 0.4
    assert masks.sum() == masks[0, 3:9, 2:13].sum()


def test_an_absolute_path_that_exists_is_taken(tmp_path):
    path = write_picture(tmp_path / "elsewhere/1.png")
    write_picture(tmp_path / "data/images/train/1.png", (9, 9))
    image = {"id": 1, "file_name": str(path), "height": 20, "width": 30}
    write_coco(tmp_path / "data", "train", [], images=[image])
    assert opened(tmp_path / "data")[0].image.size == (30, 20)


@pytest.mark.parametrize("name", ["a" * 5000, "a/" * 3000 + "z.png", "\ud800.png"])
def test_names_that_no_file_can_have_are_refused(tmp_path, name):
    write_coco(tmp_path, "train", [], images=[{"id": 1, "file_name": name, "height": 20, "width": 30}])
    with pytest.raises(UserError, match=r"lists images that do not exist|is not a JSON file"):
        opened(tmp_path)


@pytest.mark.parametrize("split", ["a" * 5000, "/tr*", "[", "../.."])
def test_odd_names_of_splits_are_refused(tmp_path, split):
    write_coco(tmp_path, "train", [])
    with pytest.raises(UserError, match="there is no annotation file"):
        opened(tmp_path, train_split=split)


@pytest.mark.parametrize("names", [("/a/1.png", "/b/1.png"), ("1.png", "1.png")])
def test_two_images_of_one_file_are_refused(tmp_path, names):
    images = [{"id": n, "file_name": name, "height": 20, "width": 30} for n, name in enumerate(names)]
    write_coco(tmp_path, "train", [], images=images)
    write_picture(tmp_path / "images/train/1.png")
    with pytest.raises(UserError, match=rf"{names[0]} and {names[1]} are both .*train/1\.png: merge these images"):
        opened(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_encodings(tmp_path, encoding):
    path = write_coco(tmp_path, "train", [], categories=[{"id": 1, "name": "Bär"}])
    path.write_bytes(json.dumps(json.loads(path.read_text()), ensure_ascii=False).encode(encoding))
    assert opened(tmp_path).info.classes == ("Bär",)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_named_where_they_count(tmp_path, word):
    path = write_coco(tmp_path, "train", [annotation(5, 1, 7, BOX, score=123.5)])
    text = path.read_text()
    path.write_text(text.replace("123.5", word))
    assert opened(tmp_path)[0].target["boxes"].tolist() == [[2, 3, 12, 8]]  # nobody reads the score
    path.write_text(text.replace("[2, 3,", f"[{word}, 3,"))
    named = f"annotation 5 has the bbox .*'{word}', 3, 10, 5.*must be four numbers"
    with pytest.raises(UserError, match=rf"{named}|out of range - at `\$\.annotations\[0\]\.bbox\[0\]"):
        opened(tmp_path)
    path.write_text(text.replace('"bbox"', f'"segmentation": [[4, 5, {word}, 5, 20, 17]], "bbox"'))
    with pytest.raises(UserError, match=r"the annotation 5 has .*neither a list of polygons nor run lengths"):
        opened(tmp_path)


def test_boxes_far_outside_are_empty(tmp_path):
    write_coco(tmp_path, "train", [annotation(1, 1, 7, [1e300, 5, 1e300, 5]), annotation(2, 1, 7, [-1e300, 0, 1e9, 5])])
    assert opened(tmp_path)[0].target["boxes"].tolist() == [[30, 5, 30, 10], [0, 0, 0, 5]]


@pytest.mark.parametrize(
    ("edit", "fragment"),
    [
        (lambda c: c.pop("annotations"), "missing required field `annotations`"),
        (lambda c: c.update(images={}), "Expected `array`, got `object` - at `$.images`"),
        (lambda c: c["images"].append("x"), "Expected `object`, got `str` - at `$.images[2]`"),
        (lambda c: c["images"][0].update(width=-3), "the image 1 has the width -3, which must be a number of pixels"),
        (lambda c: c["images"][0].update(width="wide"), "the image 1 has the width 'wide'"),
        (
            lambda c: c["images"][0].update(file_name=None),
            "the image 1 has the file_name null, which is not a file name",
        ),
        (lambda c: c["images"][0].update(id=None), "image number 1 has the id null, neither number nor text"),
        (lambda c: c["annotations"][0].update(image_id=[1]), "the annotation 5 has the image_id [1]"),
        (lambda c: c["annotations"][0].update(category_id=None), "the annotation 5 has the category_id null"),
        (lambda c: c["annotations"][0].update(bbox="2,3,4,5"), "the annotation 5 has the bbox '2,3,4,5'"),
        (lambda c: c["annotations"][0].update(id=None, bbox=None), "the annotation number 1 has the bbox null"),
    ],
)
def test_wrong_types_are_named_with_file_place_and_value(tmp_path, edit, fragment):
    change(write_coco(tmp_path, "train", [annotation(5, 1, 7, BOX)]), edit)
    with pytest.raises(UserError, match=r"instances_train\.json") as error:
        opened(tmp_path)
    assert fragment in str(error.value)


def test_images_without_annotations_are_known(tmp_path):
    write_coco(tmp_path, "train", [])
    write_picture(tmp_path / "images/train/9.png")
    (tmp_path / "images/train/notes.txt").write_text("x")
    left_out = {reason: list(names) for reason, names in opened(tmp_path).left_out.items()}
    assert left_out == {"ending": ["notes.txt"], "no annotation": ["9.png"]}
