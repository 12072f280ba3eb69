"""Names on the disk and in files may differ in their Unicode normal form."""

import unicodedata

import pytest

from nasmvt.data import DataConfig, open_dataset
from nasmvt.data.spellings import Spellings
from nasmvt.errors import UserError
from tests.data.test_voc import write_list, write_xml
from tests.data.writers import annotation, write_coco, write_picture

ONE, TWO = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))


def test_names_are_found_as_written_or_else_in_another_form():
    assert Spellings([ONE, "x"]).find(TWO) == ONE
    assert Spellings([TWO]).find(ONE) == TWO
    assert Spellings([ONE, TWO]).find(TWO) == TWO
    assert Spellings([ONE]).find("e") is None
    angstrom, a_with_ring_decomposed, a_with_ring = "\u212b", "A\u030a", "\u00c5"
    assert Spellings([angstrom, a_with_ring_decomposed]).find(a_with_ring) is None  # which one is meant?


def test_class_folders(tmp_path):
    for split, first in (("train", ONE), ("val", TWO)):
        for name in (first, "z"):
            write_picture(tmp_path / split / name / "0.png")
    config = DataConfig(format="imagefolder", root=tmp_path)
    data = open_dataset(config, "classification", "val", 0)
    assert data.info.classes == ("z", ONE)  # as in the training split, by code points
    assert [(sample.id, sample.target) for sample in data] == [(f"val/{TWO}/0.png", 1), ("val/z/0.png", 0)]
    (tmp_path / "val" / TWO).rename(tmp_path / "val" / "e")
    with pytest.raises(UserError, match="e is not"):
        open_dataset(config, "classification", "val", 0)


def test_files_of_coco(tmp_path):
    images = [{"id": 1, "file_name": f"{ONE}.png", "height": 20, "width": 30}]
    write_coco(tmp_path, "train", [annotation(1, 1, 7, [2, 3, 10, 5])], images=images)
    (tmp_path / "images/train/1.png").rename(tmp_path / f"images/train/{TWO}.png")
    assert open_dataset(DataConfig(format="coco", root=tmp_path), "detection", "train", 0)[0].id == 1


def test_lists_of_voc_name_files_with_spaces_and_accents(tmp_path):
    for stem in (TWO, "a b", "c"):
        write_picture(tmp_path / "JPEGImages" / f"{stem}.jpg")
        write_xml(tmp_path, stem, ("dog", 0, 1, 1, 10, 5), ("cat", 0, 1, 1, 10, 5))
    write_list(tmp_path, "Main", "train", ONE, "a b", "c  1")
    data = open_dataset(DataConfig(format="voc", root=tmp_path), "detection", "train", 0)
    assert [sample.id for sample in data] == [TWO, "a b", "c"]
