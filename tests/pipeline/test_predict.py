import json
import logging
from pathlib import Path

import pytest

from nasmvt.errors import UserError
from nasmvt.export.loading import LoadedModel
from nasmvt.pipeline.inputs import find_pictures
from nasmvt.pipeline.predict import predict
from nasmvt.pipeline.serve import Served
from tests.data.writers import write_picture


def test_a_folder_holds_the_images_that_training_would_see(tmp_path):
    for name in ("a.png", "b.JPG", "below/c.gif", "._a.png", ".thumbnails/d.png"):
        write_picture(tmp_path / name)
    write_picture(tmp_path / "saved.jpg").rename(tmp_path / "saved.jfif")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "album.jpg").mkdir()
    found = [str(Path(picture.source).relative_to(tmp_path)) for picture in find_pictures([tmp_path])]
    assert sorted(found) == ["a.png", "b.JPG", "below/c.gif", "saved.jfif"]


def test_a_task_of_which_nothing_is_drawn_says_so(supernet, space, tmp_path, caplog):
    model = LoadedModel(supernet.materialize(space.smallest).eval(), {})
    write_picture(tmp_path / "a.png")
    found = find_pictures([tmp_path / "a.png"])
    (plain,) = predict(model, {"det": found}, tmp_path / "all", min_score=0)
    best = max(item["score"] for item in json.loads(plain.with_suffix(".json").read_text())["objects"])
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        (empty,) = predict(model, {"det": found, "seg": []}, tmp_path / "none", min_score=best + 0.01)
    (record,) = caplog.records
    assert "task 'det': no object scores" in record.message
    assert f"{best:.2f}" in record.message
    assert json.loads(empty.with_suffix(".json").read_text()) == json.loads(plain.with_suffix(".json").read_text())
    assert empty.read_bytes() != plain.read_bytes()


@pytest.mark.parametrize("wrong", [-0.1, 1.01, float("nan")])
def test_a_least_score_is_a_score(supernet, space, tmp_path, wrong):
    model = LoadedModel(supernet.materialize(space.smallest).eval(), {})
    served = Served(loaded=model, device="cpu", precision="fp32")
    with pytest.raises(UserError, match="min_score"):
        served.predict([], tmp_path, min_score=wrong)
