"""Images to predict: found where people keep them, and named so that no answer overwrites another."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nasmvt.errors import UserError
from nasmvt.export.loading import LoadedModel
from nasmvt.pipeline.inputs import find_pictures
from nasmvt.pipeline.predict import predict


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def segmenting(supernet, space) -> LoadedModel:
    return LoadedModel(supernet.materialize(space.smallest).eval(), {})


def draw(path: str, size=(20, 30)) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(len(path)).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)


def named(*paths: str) -> dict[str, str]:
    return {picture.source: picture.name for picture in find_pictures(map(Path, paths))}


def test_hidden_and_foreign_files_of_a_folder_are_passed_over():
    for path in ("in/a.jpg", "in/deep/er/b.JPEG", "in/.thumbnails/a.jpg", "in/__MACOSX/a.jpg", "in/@eaDir/a.jpg"):
        draw(path)
    Path("in/._a.jpg").write_bytes(b"\0\5\26\7" * 30)
    Path("in/notes.txt").write_text("x")
    Path("in/folder.png").mkdir()
    assert named("in") == {"in/a.jpg": "a", "in/deep/er/b.JPEG": "b"}
    assert named("in/.thumbnails/a.jpg") == {"in/.thumbnails/a.jpg": "a"}  # it is asked for
    assert set(named("in/.thumbnails")) == {"in/.thumbnails/a.jpg"}


def test_earlier_predictions_are_no_images():
    draw("a.jpg")
    draw("predictions/cls/a.png")
    assert [p.source for p in find_pictures([Path()], Path("predictions"))] == ["a.jpg"]
    with pytest.raises(UserError, match="there is no image among the paths given"):
        find_pictures([Path("predictions")], Path("predictions/cls"))


def test_an_image_that_is_given_twice_is_predicted_once():
    draw("in/a.jpg")
    assert list(named("in", "in/a.jpg", "in/../in/a.jpg").values()) == ["a"]


def test_namesakes_have_names_of_their_own():
    for path in ("in/x.jpg", "in/X.png", "in/a-b/c/1.jpg", "in/a/b-c/1.jpg", "in/in-a-b-c-1-jpg.png", "in/y.png"):
        draw(path)
    names = named("in")
    assert names["in/y.png"] == "y"
    assert names["in/in-a-b-c-1-jpg.png"] == "in-a-b-c-1-jpg"
    assert len({name.casefold() for name in names.values()}) == 6


def test_long_names_are_cut_and_stay_apart():
    for path in ("in/" + "ä" * 120 + "1.png", "in/" + "b" * 240 + ".png", "in/c/" + "b" * 240 + ".png"):
        draw(path)
    names = list(named("in").values())
    assert len(set(names)) == 3
    assert all(len(os.fsencode(name)) <= 210 for name in names)


def test_no_answer_overwrites_another(segmenting):
    sizes = {"in/x.jpg": (20, 30), "in/x_labels.png": (50, 60), "in/x_labels_.png": (40, 30), "in/x.png": (24, 24)}
    for path, size in sizes.items():
        draw(path, size)
    draw("only/x.jpg", (20, 30))
    draw("only/x_labels.png", (50, 60))
    for folder, out in (("in", "p"), ("only", "q")):
        found = find_pictures([Path(folder)])
        assert len(list(predict(segmenting, {"seg": found}, Path(out)))) == len(found)
        records = [json.loads(path.read_text()) for path in Path(out, "seg").glob("*.json")]
        assert sorted(record["picture"] for record in records) == sorted(picture.source for picture in found)
        assert len({record["labels"] for record in records}) == len(found)
        assert len(list(Path(out, "seg").iterdir())) == 3 * len(found)
        for record in records:
            with Image.open(record["picture"]) as image, Image.open(Path(out, "seg", record["labels"])) as labels:
                assert image.size == labels.size


def test_a_name_that_is_no_text_goes_all_the_way(segmenting):
    draw("plain.jpg")
    Path("plain.jpg").rename(os.fsdecode(b"b\xe4r.jpg"))
    found = find_pictures([Path()])
    assert len(list(predict(segmenting, {"cls": found}, Path("p")))) == 1
    (path,) = Path("p/cls").glob("*.json")
    assert os.fsencode(json.loads(path.read_text())["picture"]) == b"b\xe4r.jpg"
