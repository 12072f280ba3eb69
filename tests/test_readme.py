"""What the README and the shipped files promise is there."""

import re
from pathlib import Path

import pytest
import typer
import yaml

from nasmvt.cli.main import app
from nasmvt.config import parse
from nasmvt.families import family
from nasmvt.pipeline.experiment import Experiment, load_experiment
from nasmvt.resources import shipped
from nasmvt.space import load_space
from nasmvt.space.pattern import load_pattern
from nasmvt.supernet import Supernet
from tests.conftest import make_tasks

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]


def test_every_command_is_in_the_readme():
    for name in typer.main.get_command(app).commands:
        assert f"`nasmvt {name} " in README


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = {line.split()[1] for line in COMMANDS if line.startswith("make ")}
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_own_data_example_is_a_valid_experiment():
    text = next(text for kind, text in BLOCKS if kind == "yaml")
    experiment = parse(Experiment, {"name": "mine", **yaml.safe_load(text)}, "README.md")
    assert [task.kind for task in experiment.tasks.values()] == ["classification", "detection", "segmentation"]
    assert len(text.splitlines()) <= 10


def test_linked_files_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("name", shipped("experiments"))
def test_shipped_experiments_load(name, monkeypatch):
    monkeypatch.setenv("NASMVT_SHARED", "/nowhere")
    experiment = load_experiment(name)
    assert experiment.name == name
    family(experiment.space.family).check(experiment.space)


@pytest.mark.parametrize("name", shipped("search_spaces"))
def test_shipped_spaces_fit_their_family_and_build(name):
    space = load_space(name)
    family(space.family).check(space)
    if name in {"vit_mvt_nano", "vit_mvt_mini"}:
        tasks = {task: made for task, made in make_tasks().items() if task != "det"}
        assert Supernet(space, tasks).subnet(space.smallest, "cls")


@pytest.mark.parametrize("name", shipped("search_spaces/patterns"))
def test_shipped_counting_patterns_load(name):
    assert load_pattern(name).name == name


def test_every_yaml_file_is_one_of_those_that_are_loaded():
    loaded = {
        path
        for folder in (
            "experiments",
            "experiments/papers",
            "experiments/networks",
            "search_spaces",
            "search_spaces/patterns",
        )
        for path in shipped(folder).values()
    }
    assert {path for folder in ("experiments", "search_spaces") for path in (ROOT / folder).rglob("*.y*ml")} == loaded


def test_rooms_import_only_lower_ones():
    order = [
        ("space",),
        ("families", "heads", "data"),
        ("tasks", "drafting"),
        ("model",),
        ("cost",),
        ("supernet",),
        ("training", "search"),
        ("export",),
        ("report",),
        ("pipeline",),
        ("api",),
        ("cli",),
    ]
    height = {room: level for level, rooms in enumerate(order) for room in rooms}
    for path in (ROOT / "nasmvt").glob("*/*.py"):
        room = path.parent.name
        for other in re.findall(r"^\s*(?:from|import) nasmvt\.(\w+)", path.read_text(), re.MULTILINE):
            if other in height and other != room:
                assert height[other] < height[room], f"{path} imports {other}"
    for path in (ROOT / "nasmvt").glob("[!_]*.py"):
        rooms = set(re.findall(r"^\s*(?:from|import) nasmvt\.(\w+)", path.read_text(), re.MULTILINE)) & set(height)
        assert not rooms, f"{path} lies below the rooms, but imports {rooms}"


def test_ray_is_imported_where_it_is_used_alone():
    for path in (ROOT / "nasmvt").rglob("*.py"):
        if path.name not in {"cluster.py", "ray_pool.py", "ray_workers.py"}:
            assert not re.search(r"^\s*(from|import) ray\b", path.read_text(), re.MULTILINE), path
