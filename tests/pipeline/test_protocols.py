"""A model is measured as its settings, a name or `--set` say, and its folder keeps the settings."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import nasmvt
from nasmvt.config import parse
from nasmvt.data.shapes import SHAPES
from nasmvt.errors import UserError
from nasmvt.export import save
from nasmvt.pipeline.evaluate import data_configs, data_of, evaluate_on_val
from nasmvt.pipeline.inputs import find_pictures
from nasmvt.pipeline.predict import predict
from nasmvt.supernet import Supernet
from nasmvt.tasks import KINDS, TaskConfig
from tests.data.writers import write_picture

SLIDING = {"type": "keep_ratio", "short": 40, "slide": 32, "stride": 24, "ratios": [1.0, 1.5], "flip": True}


@pytest.fixture
def folder(space: Any, tasks: Any, tmp_path: Path) -> Path:
    values = tasks["seg"].config.model_dump(mode="json")
    values["data"] |= {"test": SLIDING, "val_images": 3}
    tasks["seg"] = replace(tasks["seg"], config=parse(TaskConfig, values, "seg"))
    tasks["cls"] = replace(tasks["cls"], config=parse(TaskConfig, {"kind": "classification"}, "cls"))
    for name, task in tasks.items():
        classes = ("background", *SHAPES) if name == "seg" else SHAPES
        tasks[name] = replace(task, info=replace(task.info, classes=classes))
    model = Supernet(space, tasks).materialize(space.smallest)
    save(model, tmp_path / "model", metrics={}, split="none", seed=0)
    return tmp_path / "model"


def test_an_exported_folder_keeps_how_images_are_read(folder: Path) -> None:
    task = nasmvt.load(folder).task("seg")
    kept = task.task.config.data.test.model_dump(mode="json")
    assert {key: kept[key] for key in SLIDING} == {**SLIDING, "slide": [32, 32], "stride": [24, 24]}
    (prediction,) = task.predict([torch.zeros(3, 50, 70, dtype=torch.uint8)])
    assert prediction.labels.shape == (50, 70)


def test_a_protocol_by_name_and_its_settings(folder: Path) -> None:
    loaded = nasmvt.load(folder)
    assert data_configs(loaded, ())["seg"].data.test.passes == 4
    paper = data_configs(loaded, (), "paper")
    assert {name: config.data.test for name, config in paper.items()} == {
        name: KINDS.get(task.config.kind).paper for name, task in loaded.model.tasks.items()
    }
    changed = data_configs(loaded, ["tasks.seg.data.test.short=48", "tasks.seg.data.test.flip=true"], "paper")
    assert [placement.place((10, 20)).valid for placement in changed["seg"].data.test_placements] == [(48, 96)] * 2
    with pytest.raises(UserError, match="a protocol is one of fit, paper for the task 'cls', not 'papr'"):
        data_configs(loaded, (), "papr")


def test_figures_are_measured_by_the_protocol_that_is_asked_for(folder: Path) -> None:
    loaded = nasmvt.load(folder)
    only = ["tasks.cls.data.val_images=1", "tasks.det.data.val_images=1"]
    figures = {}
    for protocol in (None, "fit"):
        configs = data_configs(loaded, only, protocol)
        figures[protocol] = evaluate_on_val(loaded.model, data_of(loaded, configs), torch.device("cpu"))["seg"]
    assert figures[None] != figures["fit"]


def test_predictions_are_made_by_the_protocol_that_is_asked_for(folder: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "in/a.png", (50, 70))
    loaded, found = nasmvt.load(folder), find_pictures([tmp_path / "in"])
    shares = {}
    for protocol in (None, "fit", "paper"):
        (drawn,) = predict(loaded, {"seg": found}, tmp_path / str(protocol), protocol=protocol)
        shares[protocol] = json.loads(drawn.with_suffix(".json").read_text())
    assert shares[None]["size"] == shares["fit"]["size"] == shares["paper"]["size"]
    assert len({str(content["shares"]) for content in shares.values()}) == 3
    with pytest.raises(UserError, match="a protocol is one of fit, paper for the task 'seg', not 'papr'"):
        next(predict(loaded, {"seg": found}, tmp_path / "none", protocol="papr"))
