"""The commands as functions: the notebook of the docs runs, and what is refused is refused."""

import ast
import inspect
import json
import re
from pathlib import Path

import pytest

from nasmvt import api
from nasmvt.api.run import as_texts
from nasmvt.pipeline.runs import stage_of
from tests.conftest import tiny_experiment

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "main_job.ipynb"
README = ROOT / "README.md"
QUICK = 'settings = {"steps": 8, "images": 8, "population": 2, "generations": 1}'


def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    sources = ["".join(cell["source"]) for cell in cells]
    sources[0], changed = re.subn(r"settings = \{.*\}", QUICK, sources[0])
    assert changed == 1
    assert all(cell["outputs"] == [] for cell in cells), "outputs are not kept in the repository"
    names: dict = {"__name__": "notebook"}
    for source in sources:
        exec(compile(source, str(NOTEBOOK), "exec"), names)
    printed = capsys.readouterr().out
    assert "step 8, largest:" in printed  # only the notebook's own listener prints
    assert {line.split()[0] for line in printed.splitlines()} <= {"step", "T-score", "runs/notebook/report.html"}
    run = names["run"]
    assert stage_of(run) == "exported"
    assert run.best().parameters.count.total <= 1_000_000
    assert len(names["candidates"]) == len(run.candidates()) == 2
    assert names["model"].tasks == ("cls", "det", "seg")
    assert run.report_path.is_file()


def test_the_calls_of_the_readme_fit_the_functions():
    source = re.findall(r"```python\n(from nasmvt import api\n.*?)```", README.read_text(), re.DOTALL)
    calls = [node for node in ast.walk(ast.parse(source[0])) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Attribute)]
    assert {call.func.attr for call in named} == {"train_supernet", "search", "retrain", "evaluate", "export", "report"}
    for call in named:
        given = dict.fromkeys(str(keyword.arg) for keyword in call.keywords)
        inspect.signature(getattr(api, call.func.attr)).bind(*call.args, **given)


def test_settings_are_those_of_the_command_line():
    changes = {
        "training.lr": 1e-5,
        "space": "vit_mvt_nano",
        "tasks.cls.data.image_size": [32, 48],
        "retrain.clip": None,
        "tasks.cls.data.classes": ["5e3", "no", "a, b"],
    }
    texts = as_texts(changes)
    assert texts == [
        "training.lr=1.0e-05",
        "space=vit_mvt_nano",
        "tasks.cls.data.image_size=[32, 48]",
        "retrain.clip=null",
        "tasks.cls.data.classes=['5e3', 'no', 'a, b']",
    ]


def test_what_does_not_go_together_is_refused(tmp_path):
    experiment = api.Experiment.model_validate(tiny_experiment())
    with pytest.raises(api.UserError, match="give changes and seed when it is loaded"):
        api.train_supernet(experiment, seed=3, out=tmp_path / "r")
    with pytest.raises(api.UserError, match="leave out the experiment, changes of its settings and the seed"):
        api.train_supernet("shapes", resume=True, out=tmp_path / "r")
    with pytest.raises(api.UserError, match="is not a run directory"):
        api.search(tmp_path)
    with pytest.raises(api.UserError, match="a budget is a number of parameters"):
        api.search(tmp_path, budget="much")
    assert not list(tmp_path.iterdir())
