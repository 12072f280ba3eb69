"""`nasmvt draft-space`: the file that it writes, a run on it, and what it refuses."""

from pathlib import Path

import pytest

from nasmvt.space import load_space
from tests.cli.conftest import write_experiment
from tests.cli.test_initial import FEW


def test_a_drafted_space_is_trained_searched_and_exported(nasmvt) -> None:
    printed = nasmvt("draft-space", "timm:test_vit", "--out", "vit.yaml")
    assert "blocks_attn_heads" in printed
    assert "M parameters without heads" in printed
    space = load_space("vit.yaml")
    assert space.named("published") == space.largest

    def one_task(values) -> None:
        for name in ("det", "seg"):
            values["tasks"].pop(name)

    experiment = write_experiment(one_task, training=FEW, retrain=FEW, space="vit.yaml")
    nasmvt("train-supernet", experiment, "--out", "run")
    nasmvt("search", "run", "--workers", "0", "--budget", "250k")
    nasmvt("retrain", "run")
    nasmvt("export", "run")
    assert "top1" in nasmvt("evaluate", "run/export")


@pytest.mark.parametrize(
    ("network", "out", "sentence"),
    [
        ("test_vit", "new.yaml", "a network is named as timm:NAME, not 'test_vit': write timm:test_vit"),
        ("timm:resnet5o", "new.yaml", "timm knows no network 'resnet5o'; did you mean 'resnet50'?"),
        ("timm:test_vit", "new.txt", "--out must name a .yaml file, not new.txt: write new.yaml"),
        ("timm:test_vit", "old.yaml", "old.yaml exists: give another name, or remove it"),
    ],
)
def test_what_can_not_be_drafted_is_refused(nasmvt, network, out, sentence) -> None:
    Path("old.yaml").touch()
    assert sentence in nasmvt.refused("draft-space", network, "--out", out)
    assert not Path("new.yaml").exists()
