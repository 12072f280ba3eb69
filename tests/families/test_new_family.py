"""The example of docs/new-family.md does what the page says."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import nasmvt
from nasmvt.errors import UserError
from nasmvt.families import family, register

PAGE = (Path(__file__).parents[2] / "docs" / "new-family.md").read_text(encoding="utf-8")
BLOCKS: dict[str, str] = dict(re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL))
FEW = {
    "training": {"steps": 2, "evaluate_every": 2, "evaluation_images": 4, "warmup_steps": 1},
    "search": {"population": 2, "parents": 1, "generations": 1, "images": 8, "workers": 0},
}


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "my_convnext.py").write_text(BLOCKS["python"])
    (tmp_path / "convnext.yaml").write_text(BLOCKS["yaml"])
    return tmp_path


def test_the_example_is_short() -> None:
    assert len(BLOCKS["python"].splitlines()) <= 40


def test_the_commands_of_the_page_run_in_its_folder(folder, monkeypatch) -> None:
    changes = [f"{part}.{key}={value}" for part, values in FEW.items() for key, value in values.items()]
    changes += [f"tasks.{t}.data.{key}=40" for t in ("cls", "det", "seg") for key in ("train_images", "val_images")]
    for line in BLOCKS["bash"].splitlines():
        name, *words = shlex.split(line)[1:]
        if name == "train-supernet":
            words += [word for change in changes for word in ("--set", change)]
        command = [sys.executable, "-m", "nasmvt.cli.main", name, *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    best = yaml.safe_load((folder / "runs/convnext/search/best.yaml").read_text())
    assert best["parameters"]["total"] <= 700_000
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    model = nasmvt.load("runs/convnext/export")
    assert type(model.task("seg").network.backbone).__name__ == "ConvNeXt"
    assert model.task("det").network.backbone.strides == (4, 8, 16, 32)


def test_a_family_whose_module_is_absent_is_refused() -> None:
    with pytest.raises(UserError, match="the module 'no_such_module' of a family can't be imported"):
        family("no_such_module:convnext")


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(UserError, match=r"'lvt' is registered by nasmvt\.families\.lvt"):

        @register("lvt", choices={}, roles={})
        def build(arch, *, kind, image_size):
            raise AssertionError
