"""`nasmvt train-supernet` with weights to begin with: what it says, and what it refuses before anything is written."""

import json
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import write_experiment

FEW = {"steps": 1, "warmup_steps": 0, "log_every": 1, "recalibration_images": 8, "evaluation_images": 4}


def classification(**initial) -> Path:
    """Write an experiment of one task that trains for one step."""
    return write_experiment(
        lambda values: [values["tasks"].pop(name) for name in ("det", "seg")], training=FEW, initial=initial
    )


def test_what_was_filled_is_said_and_written_down(nasmvt) -> None:
    nasmvt("train-supernet", write_experiment(lambda v: [v["tasks"].pop(n) for n in ("det", "seg")], training=FEW))
    first = next(Path("runs").iterdir())
    printed = nasmvt("train-supernet", classification(weights=str(first), order="magnitude"), "--out", "next")
    said = [line.removeprefix("initial weights: ") for line in printed.splitlines() if line.startswith("initial w")]
    record = json.loads(Path("next/initial.json").read_text())
    assert len(record["digest"]) == 64
    assert "fills the backbones: cls 100.0%" in record["filled"][0]
    assert record["filled"][1] == "tensors of necks and heads that fit: 2 of cls"
    assert record["filled"][-1] == "the units of 10 modules are in the order of importance, by magnitude"
    assert said[-1] in record["filled"][-1]


@pytest.mark.parametrize(
    ("initial", "sentence"),
    [
        ({"weights": "absent.pth"}, "there is no checkpoint"),
        ({"weights": "here"}, "here is not an exported model"),
        ({"weights": "other.pth"}, "the family vit_mvt knows no published names"),
        ({"weights": "timm"}, "weights: timm needs the name of a model"),
        ({"weights": "timm", "model": "resnet18"}, "the family vit_mvt knows no published names"),
        ({"weight": "timm"}, "unknown key 'initial.weight'"),
    ],
)
def test_weights_that_are_none_are_refused_and_no_run_begins(nasmvt, initial, sentence) -> None:
    Path("here").mkdir()
    torch.save({"a": torch.ones(1)}, "other.pth")
    assert sentence in nasmvt.refused("train-supernet", classification(**initial), "--out", "r")
    assert not Path("r").exists()
