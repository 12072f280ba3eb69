"""What `nasmvt data` and the start of a training say about data, and what they refuse."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import write_experiment
from tests.data.writers import write_picture


@pytest.fixture
def folders():
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            for n in range(4):
                write_picture(Path(f"data/{split}/{name}/{n}.png"))
    (Path("data/train/cat/photo.HEIC")).write_text("x")

    def one_task(values):
        task = values["tasks"]["cls"]
        data = {"format": "imagefolder", "root": "data", "image_size": 32, "search_fraction": 0.25}
        values["tasks"] = {"cls": {**task, "data": data}}

    write_experiment(one_task, training={"steps": 1, "warmup_steps": 0})


def test_the_report_is_printed_and_written_with_a_drawn_sample(nasmvt, folders):
    printed = nasmvt("data", "tiny.yaml", "--out", "look")
    for text in ("ending: 1 (train/cat/photo.HEIC)", "cat", "4 images", "30x20"):
        assert text in printed
    report = json.loads(Path("look/data_report.json").read_text())["cls"]
    assert report["train"]["classes"] == {"cat": 4, "dog": 4}
    assert report["train"]["left_out"] == {"ending": {"count": 1, "examples": ["train/cat/photo.HEIC"]}}
    assert report["val"]["images"] == 8
    assert report["warnings"] == []
    assert Path("look/batches/cls.png").stat().st_size > 0


def test_nothing_is_written_unless_asked_for(nasmvt, folders):
    before = sorted(Path().rglob("*"))
    nasmvt("data", "tiny.yaml", "--all")
    assert sorted(Path().rglob("*")) == before


def test_a_training_says_what_was_left_out_and_keeps_the_report(nasmvt, folders):
    printed = nasmvt("train-supernet", "tiny.yaml", "--out", "out")
    assert "data of cls: train 8 images, 2 classes, 30x20 pixels; val 8 images, 2 classes, 30x20 pixels" in printed
    assert "left out of cls, train: ending: 1 (train/cat/photo.HEIC)" in printed
    assert json.loads(Path("out/data_report.json").read_text())["cls"]["train"]["images"] == 8


def test_a_missing_val_is_a_warning(nasmvt, folders):
    Path("data/val").rename("data/elsewhere")
    printed = nasmvt("train-supernet", "tiny.yaml", "--out", "out")
    assert "warning: cls, val: the split 'val' needs a folder" in printed
    assert "'evaluate' and 'compare' need it" in printed


@pytest.mark.parametrize("command", [["data", "tiny.yaml"], ["train-supernet", "tiny.yaml", "--out", "out"]])
def test_a_val_that_contradicts_train_is_refused_before_anything_is_trained(nasmvt, folders, command):
    Path("data/val/dog").rename("data/val/cow")
    assert "cow is not" in nasmvt.refused(*command)
    assert not Path("out").exists()


@pytest.mark.parametrize("command", [["data", "tiny.yaml"], ["train-supernet", "tiny.yaml", "--out", "out"]])
def test_an_empty_val_is_refused_before_anything_is_trained(nasmvt, folders, command):
    for path in Path("data/val").rglob("*.png"):
        path.unlink()
    assert "holds no images" in nasmvt.refused(*command)
    assert not Path("out").exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_image_that_a_later_step_would_stop_at_is_refused(nasmvt, folders, split):
    Path(f"data/{split}/dog/3.png").write_bytes(b"no image")
    assert f"{split}/dog/3.png can't be decoded" in nasmvt.refused("data", "tiny.yaml")
    assert "can't be decoded" in nasmvt.refused("train-supernet", "tiny.yaml", "--out", "out")
    assert not Path("out").exists()
    nasmvt("data", "tiny.yaml", "--set", "tasks.cls.data.skip_unreadable=true")
