import numpy as np
import pytest
from PIL import Image

from nasmvt.data import DataConfig, open_dataset
from nasmvt.data import pictures as pictures_module
from nasmvt.data.survey import survey
from nasmvt.errors import UserError
from tests.data.writers import annotation, write_coco, write_labels, write_picture

KINDS = {"imagefolder": "classification", "coco": "detection", "ade20k": "segmentation", "yolo": "detection"}


def look(root, format, split="train", *, tolerant=False, **more):
    """Survey a data set; what is read of it may be limited by `most` and `seconds`."""
    limits = {key: more.pop(key) for key in ("most", "seconds") if key in more}
    config = DataConfig(format=format, root=root, **more)
    return survey(open_dataset(config, KINDS[format], split, 0), 0, tolerant=tolerant, **limits)


@pytest.fixture
def folders(tmp_path):
    for name, images in (("cat", 5), ("dog", 2)):
        for n in range(images):
            write_picture(tmp_path / f"train/{name}/{n}.png", (20 + n, 30))
    write_picture(tmp_path / "val/dog/0.png")
    (tmp_path / "train/cat/notes.txt").write_text("x")
    (tmp_path / "train/cat/photo.HEIC").write_text("x")
    (tmp_path / "train/dog/.hidden.png").write_text("x")
    (tmp_path / "train/dog/2024").mkdir()
    return tmp_path


def test_classes_are_counted_in_images(folders):
    report = look(folders, "imagefolder")
    assert (report.images, report.looked_at, report.names) == (7, 7, ("cat", "dog"))
    assert (report.labels.unit, report.labels.images, report.labels.classes) == ("images", 7, (5, 2))
    assert (report.smallest, report.largest) == ((20, 30), (24, 30))
    assert {reason: sorted(names) for reason, names in report.left_out.items()} == {
        "ending": ["train/cat/notes.txt", "train/cat/photo.HEIC"],
        "hidden": ["train/dog/.hidden.png"],
        "sub-folder": ["train/dog/2024"],
    }
    assert report.warnings() == []


def test_a_class_absent_in_a_split_is_said(folders):
    assert look(folders, "imagefolder", "val").labels.classes == (0, 1)
    assert look(folders, "imagefolder", "val").warnings() == [
        "there are no images of cat",
        "dog is the only class: there is nothing to tell apart",
    ]


def test_a_part_of_the_images_has_counts_of_its_own(folders):
    report = look(folders, "imagefolder", limit=3)
    dataset = open_dataset(DataConfig(format="imagefolder", root=folders, limit=3), "classification", "train", 0)
    labels = [dataset[index].target for index in range(3)]
    assert report.images == 3
    assert report.labels.classes == (labels.count(0), labels.count(1))


def test_images_that_cannot_be_read_are_named(folders):
    (folders / "train/dog/0.png").write_bytes(b"no image")
    report = look(folders, "imagefolder")
    assert len(report.unreadable) == 1
    assert "train/dog/0.png can't be decoded" in report.refusal
    skipped = look(folders, "imagefolder", tolerant=True)
    assert skipped.refusal is None
    assert "1 images can't be read and are skipped" in skipped.warnings()[0]


def test_animations_are_said(folders):
    frames = [Image.new("RGB", (8, 6), (shade, 0, 0)) for shade in (0, 200)]
    frames[0].save(folders / "train/dog/moving.gif", save_all=True, append_images=frames[1:])
    report = look(folders, "imagefolder")
    assert (report.animated, report.smallest) == (1, (6, 8))
    assert report.warnings() == ["1 of 8 images looked at are animated: the first frame is used"]


def test_no_image_is_decoded_where_headers_tell(folders, monkeypatch):
    monkeypatch.setattr(pictures_module, "to_rgb", lambda image: pytest.fail("an image was decoded"))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("an image was decoded"))
    assert look(folders, "imagefolder").looked_at == 7


def test_looking_is_bounded_in_number_and_time_and_says_so(folders):
    some = look(folders, "imagefolder", most=3)
    assert (some.images, some.looked_at, some.labels.classes) == (7, 3, (5, 2))
    assert look(folders, "imagefolder", seconds=0.0).looked_at == 1
    assert look(folders, "imagefolder", most=None).looked_at == 7


def test_objects_are_counted_and_what_is_odd_about_them(tmp_path):
    outline = {"segmentation": [[1, 1, 5, 1, 5, 5]]}
    objects = [
        annotation(1, 1, 7, [2, 3, 10, 5], **outline),
        annotation(2, 1, 7, [25, 3, 10, 5]),  # 5 pixels beyond the right edge
        annotation(3, 1, 7, [4, 4, 0, 5]),
        annotation(4, 2, 7, [1, 1, 8, 8], iscrowd=1),
    ]
    write_coco(tmp_path, "train", objects, pictures=3)
    report = look(tmp_path, "coco")
    assert report.names == ("cat", "dog")
    assert (report.labels.unit, report.labels.images, report.labels.classes) == ("objects", 3, (0, 3))
    assert report.labels.ignored == 1
    assert report.labels.ignored_share == 0.25
    assert {what: number for what, number in report.labels.odd.items() if number} == {
        "images have no object": 1,
        "objects have an empty box and are not trained on": 1,
        "boxes extend beyond their image and are clipped": 1,
        "objects have no mask although others do: only boxes are used": 2,
    }
    assert "there are no objects of cat" in report.warnings()


def test_boxes_alone_are_not_odd(tmp_path):
    write_coco(tmp_path, "train", [annotation(n, n, c, [0, 0, 30, 20]) for n, c in ((1, 7), (2, 2))])
    assert look(tmp_path, "coco").warnings() == []


def test_sizes_that_annotations_state_wrongly_are_refused(tmp_path):
    write_coco(tmp_path, "train", [annotation(1, 1, 7, [2, 3, 10, 5])])
    write_picture(tmp_path / "images/train/1.png", (21, 30))
    with pytest.raises(UserError, match=r"1\.png must have the size that .* states"):
        look(tmp_path, "coco")


def test_boxes_in_parts_of_the_sides(tmp_path):
    for name, line in (("a", "1 0.5 0.5 0.2 0.4\n0 0.95 0.5 0.2 0.4\n"), ("b", "")):
        write_picture(tmp_path / f"images/train/{name}.png")
        (tmp_path / "labels/train").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"labels/train/{name}.txt").write_text(line)
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [dog, cat]\n")
    labels = look(tmp_path, "yolo").labels
    assert (labels.images, labels.classes) == (2, (1, 1))
    assert labels.odd["boxes extend beyond their image and are clipped"] == 1
    assert labels.odd["images have no object"] == 1


@pytest.fixture
def label_maps(tmp_path):
    (tmp_path / "classes.txt").write_text("sky\nroad\ntree\n")
    labels = np.zeros((20, 30), np.uint8)
    labels[:5], labels[5:15] = 1, 3  # sky, tree; the rest is ignored
    for n, values in enumerate((labels, np.full((20, 30), 255, np.uint8))):
        write_picture(tmp_path / f"images/train/{n}.png")
        write_labels(tmp_path / f"annotations/train/{n}.png", values)
    return tmp_path


def test_pixels_are_counted(label_maps):
    report = look(label_maps, "ade20k")
    assert (report.labels.unit, report.labels.images) == ("pixels", 2)
    assert report.labels.classes == (150, 0, 300)
    assert report.labels.ignored == 150 + 600
    assert report.labels.ignored_share == 750 / 1200
    assert report.warnings() == ["there are no pixels of road", "1 label maps hold only ignored pixels"]


def test_figures_from_a_sample_say_so(label_maps):
    report = look(label_maps, "ade20k", most=1)
    assert (report.images, report.labels.images) == (2, 1)
    assert all(warning.endswith("in the 1 images looked at") for warning in report.warnings())


def test_label_maps_of_another_size_are_refused(label_maps):
    write_labels(label_maps / "annotations/train/1.png", np.ones((21, 30), np.uint8))
    with pytest.raises(UserError, match="must have one size"):
        look(label_maps, "ade20k")


def test_data_of_a_format_that_tells_nothing_are_read_once():
    dataset = open_dataset(DataConfig(train_images=12, image_size=32), "detection", "train", 0)
    labels = np.concatenate([dataset[index].target["labels"].numpy() for index in range(12)])
    report = survey(dataset, 0, tolerant=False)
    assert report.labels.classes == tuple(np.bincount(labels, minlength=5).tolist())
    assert (report.smallest, report.largest) == ((32, 32), (32, 32))
