import numpy as np
import pytest
from PIL import Image

from nasmvt.data import IGNORE, DataConfig, open_dataset
from nasmvt.errors import UserError
from tests.data.writers import write_labels, write_picture

OBJECT = (
    "<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin>"
    "<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


def write_xml(root, stem, *objects, size="<size><width>30</width><height>20</height><depth>3</depth></size>"):
    path = root / "Annotations" / f"{stem}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    body = "".join(OBJECT.format(*item) for item in objects)
    path.write_text(f"<annotation><filename>{stem}.jpg</filename>{size}{body}</annotation>")


def write_list(root, topic, split, *stems):
    path = root / "ImageSets" / topic / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{stem}\n" for stem in stems))


@pytest.fixture
def root(tmp_path):
    for stem in ("a", "b", "c"):
        write_picture(tmp_path / "JPEGImages" / f"{stem}.jpg")
    write_xml(tmp_path, "a", ("dog", 0, 1, 1, 10, 5), ("cat", 1, 11, 6, 30, 20))
    write_xml(tmp_path, "b")
    write_xml(tmp_path, "c", ("dog", 0, 2, 2, 3, 3), size="")
    for topic in ("Main", "Segmentation"):
        write_list(tmp_path, topic, "train", "a", "b")
        write_list(tmp_path, topic, "val", "c")
    return tmp_path


def boxes(root, split="train", **more):
    return open_dataset(DataConfig(format="voc", root=root, **more), "detection", split, 0)


def test_boxes_count_pixels_from_one(root):
    train, val = boxes(root), boxes(root, "val")
    assert train.info == val.info
    assert (train.info.classes, train.info.has_masks) == (("cat", "dog"), False)
    target = train[0].target
    assert target["boxes"].tolist() == [[0, 0, 10, 5], [10, 5, 30, 20]]
    assert target["labels"].tolist() == [1, 0]
    assert target["crowd"].tolist() == [False, True]  # difficult
    assert len(train[1].target["boxes"]) == 0
    assert (val[0].id, val[0].target["labels"].tolist()) == ("c", [1])


def test_data_without_lists_are_divided_by_seed(root):
    for path in (root / "ImageSets/Main").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"needs a list of its images, but there is no .*Main/train\.txt"):
        boxes(root)
    config = DataConfig(format="voc", root=root, split=0.3)
    train, val = (open_dataset(config, "detection", split, 0) for split in ("train", "val"))
    assert sorted(sample.id for part in (train, val) for sample in part) == ["a", "b", "c"]
    assert len(val) == 1


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (lambda xml: xml.replace("<name>dog</name>", ""), r"a\.xml: every object needs a name"),
        (lambda xml: xml.replace("<xmin>1<", "<xmin>nan<"), r"'dog' has the bndbox \['nan', '1', '10', '5'\]"),
        (lambda xml: xml.replace("<difficult>0<", "<difficult>maybe<"), "'difficult' of the object 'dog' must be 0"),
        (lambda xml: xml[:40], r"a\.xml is not an XML file"),
    ],
)
def test_a_bad_file_is_refused_by_name(root, change, fragment):
    path = root / "Annotations/a.xml"
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=fragment):
        boxes(root)


def test_missing_files_are_named(root):
    (root / "Annotations/b.xml").unlink()
    with pytest.raises(UserError, match=r"b\.xml can't be read"):
        boxes(root)
    write_list(root, "Main", "train", "a", "z")
    with pytest.raises(UserError, match=r"train\.txt must name images of .*JPEGImages, but z"):
        boxes(root)


def test_sizes_that_differ_are_named(root):
    write_picture(root / "JPEGImages/a.jpg", (20, 31))
    with pytest.raises(UserError, match=r"a\.jpg must have the size that .* states, but it is 31x20, and not 30x20"):
        boxes(root)[0]


def test_label_maps_have_vocs_classes(root):
    labels = np.zeros((20, 30), dtype=np.uint8)
    labels[5:, :10] = 15
    labels[4] = 255
    for stem in ("a", "b", "c"):
        path = write_labels(root / "SegmentationClass" / f"{stem}.png", labels)
        Image.open(path).convert("P").save(path)
    config = DataConfig(format="voc", root=root)
    dataset = open_dataset(config, "segmentation", "train", 0)
    assert (len(dataset), len(dataset.info.classes)) == (2, 21)
    assert dataset.info.classes[15] == "person"
    assert np.array_equal(dataset[0].target.numpy(), labels)
    assert dataset[0].target[4, 0] == IGNORE
    (root / "SegmentationClass/b.png").unlink()
    with pytest.raises(UserError, match=r"needs a label map, but there is no .*b\.png"):
        open_dataset(config, "segmentation", "train", 0)


def test_identity_sees_the_content_of_annotations(root):
    before = boxes(root).identity()
    write_xml(root, "a", ("dog", 0, 1, 1, 10, 6), ("cat", 1, 11, 6, 30, 20))
    assert boxes(root).identity().digest != before.digest
