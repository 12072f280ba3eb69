"""A run begun by two processes: one run directory, every figure once, whoever measured it."""

import copy
import json

import torch

from nasmvt.config import parse
from nasmvt.pipeline.experiment import Experiment
from nasmvt.pipeline.supernet import train_supernet
from tests.conftest import tiny_experiment
from tests.training.group import together


def begin(processes, out):
    values = copy.deepcopy(tiny_experiment())
    values["training"] |= {"steps": 2, "warmup_steps": 1}
    for task in values["tasks"].values():
        task["batch_size"] = 4
    reports = []
    experiment = parse(Experiment, values, "tiny")
    more = {"on_report": reports.append, "processes": processes, "device": torch.device("cpu")}
    run = train_supernet(experiment, out=out if processes.first else None, **more)
    return run.path, len(reports)


def test_two_processes_make_one_run(tmp_path):
    found = together(2, begin, tmp_path / "run")
    assert found == [(tmp_path / "run", 1), (tmp_path / "run", 0)]
    folder = tmp_path / "run" / "supernet"
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(entry["step"], "metrics" in entry) for entry in entries] == [(1, False), (2, False), (2, True)]
    figures = entries[-1]["metrics"]
    assert list(figures) == ["smallest", "random", "largest"]
    assert [list(tasks) for tasks in figures.values()] == [["cls", "det", "seg"]] * 3
    assert sorted(path.name for path in (folder / "predictions").iterdir()) == ["cls.png", "det.png", "seg.png"]
    assert (folder / "checkpoint.pt").is_file()
    assert (folder / "curves.png").is_file()
