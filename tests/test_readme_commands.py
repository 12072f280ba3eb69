"""The README's commands and programs are run as they stand there, with few steps and tiny data."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from nasmvt.cli.main import app
from tests.data.writers import annotation, write_coco, write_labels, write_picture
from tests.families.reference import SHARED

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", README, re.DOTALL | re.MULTILINE))
FEW = {
    "training": {"steps": 2, "warmup_steps": 1, "evaluate_every": 2, "evaluation_images": 2, "recalibration_images": 2},
    "retrain": {"steps": 2, "warmup_steps": 1, "evaluation_images": 2, "recalibration_images": 2},
    "search": {"population": 2, "parents": 1, "generations": 1, "images": 2, "recalibration_images": 2, "workers": 0},
}


def block(section: str, language: str) -> str:
    return re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], re.DOTALL)[0]


def run(section: str, *changes: str) -> None:
    """Run a section's `nasmvt` commands one after the other; `changes` make the training short."""
    few = [f"{part}.{key}={value}" for part, values in FEW.items() for key, value in values.items()]
    for line in block(section, "bash").splitlines():
        program, *words = shlex.split(line, comments=True)
        if program != "nasmvt":
            continue
        if words[0] == "train-supernet":
            words += [word for change in (*few, *changes) for word in ("--set", change)]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, (line, result.output, result.exception)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_main_job():
    sizes = ("train_images=24", "val_images=24")
    run("The main job", *(f"tasks.{task}.data.{size}" for task in ("cls", "det", "seg") for size in sizes))
    (folder,) = Path("runs").iterdir()
    exported = [path.name for path in (folder / "export").iterdir()]
    assert sorted(exported) == ["README.md", "config.json", "model.safetensors"]


@pytest.fixture(scope="module")
def own_data(tmp_path_factory) -> Path:
    """A folder with the three data sets of the README's example."""
    root = tmp_path_factory.mktemp("data")
    for split in ("train", "val"):
        for number in range(8):
            write_picture(root / "products" / split / ("cup", "plate")[number % 2] / f"{number}.jpg")
            write_picture(root / "floors" / "images" / split / f"{number}.jpg")
            labels = np.random.default_rng(number).integers(0, 3, (20, 30), dtype=np.uint8)
            write_labels(root / "floors" / "annotations" / split / f"{number}.png", labels)
        objects = [annotation(n, n, (7, 2)[n % 2], [2, 3, 10, 12], area=120) for n in range(1, 9)]
        write_coco(root / "shelves", split, objects, pictures=8)
    (root / "floors" / "classes.txt").write_text("wood\nstone\n")
    write_picture(root / "holiday" / "beach.jpg", (48, 64))
    return root


def test_your_own_data_and_your_program(own_data):
    Path("mine.yaml").write_text(block("Your own data", "yaml").replace("/data/", f"{own_data}/"))
    Path("holiday").symlink_to(own_data / "holiday")
    tasks = yaml.safe_load(Path("mine.yaml").read_text())["tasks"]
    small = [f"tasks.{task}.{key}" for task in tasks for key in ("data.image_size=64", "data.search_fraction=0.25")]
    run("Your own data", *small, *(f"tasks.{task}.batch_size=2" for task in tasks))
    assert {path.name for path in Path("predictions").rglob("*.json")} == {"beach.json"}

    write_picture(Path("shelf.jpg"), (48, 64))
    printed = []
    exec(compile(block("In your program", "python"), "README.md", "exec"), {"print": printed.append})
    assert len(printed) == 1
    assert isinstance(printed[0], list)


def test_published_networks():
    keys = SHARED / "parity" / "keys_mpvit_small.json"
    if not keys.is_file():
        pytest.skip(f"published keys {keys} are absent: set NASMVT_SHARED")
    torch.save({key: torch.zeros(shape) for key, shape in json.loads(keys.read_text()).items()}, "mpvit_small.pth")
    names: dict[str, Any] = {}
    exec(compile(block("Backbone families", "python"), "README.md", "exec"), names)
    images = torch.rand(1, 3, 64, 64)
    assert names["classifier"](images).shape == (1, 1000)
    assert [m.shape[-1] for m in names["backbone"](images)] == [16, 8, 4, 2]
