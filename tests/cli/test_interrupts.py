"""Ctrl-C, kill and losses that explode: what was done is kept, and the command goes on from there."""

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from nasmvt.files import held
from tests.cli.conftest import start, write_experiment


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True) if path.is_file() else []


def stop(process, path: Path, lines: int, number: signal.Signals) -> str:
    """Send a signal when a file has some lines; return what is printed on stderr."""
    deadline = time.monotonic() + 60
    while len(lines_of(path)) < lines and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, number)
    return process.communicate(timeout=60)[1]


def logged(path: Path) -> list[tuple[int, str]]:
    """Return step and kind of every line of metrics.jsonl."""
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [(entry["step"], "loss" if "loss" in entry else "metrics") for entry in entries]


def whole(steps: int) -> list[tuple[int, str]]:
    return [*((step, "loss") for step in range(1, steps + 1)), (steps, "metrics")]


ONE_TASK = {"steps": 60, "warmup_steps": 2, "checkpoint_every": 1000, "log_every": 1, "recalibration_images": 4}


def one_task(values):
    values["tasks"] = {"cls": values["tasks"]["cls"]}


def test_an_interrupted_training_leaves_a_checkpoint_and_goes_on(nasmvt):
    write_experiment(one_task, training=ONE_TASK)
    log = Path("out dir/supernet/metrics.jsonl")
    process = start("train-supernet", "tiny.yaml", "--out", "out dir")
    said = stop(process, log, 4, signal.SIGINT)
    assert process.returncode == 2
    assert said.count("\n") == 1
    assert said.startswith("interrupted after step ")
    assert "pass --resume --out 'out dir' alone" in said
    done = logged(log)
    assert len(done) < 60
    sentence = nasmvt.refused("search", "out dir")
    assert f"ended at step {done[-1][0]} of 60" in sentence
    nasmvt("train-supernet", "--resume", "--out", "out dir")
    assert logged(log) == whole(60)


@pytest.mark.parametrize("every", [3, 1000], ids=["after a checkpoint", "before the first checkpoint"])
def test_a_killed_training_goes_on_without_doubled_lines(nasmvt, every):
    write_experiment(one_task, training={**ONE_TASK, "checkpoint_every": every})
    log = Path("out/supernet/metrics.jsonl")
    process = start("train-supernet", "tiny.yaml", "--out", "out")
    stop(process, log, 5, signal.SIGKILL)
    assert len(logged(log)) < 60
    with log.open("a") as file:
        file.write('{"step": 4')  # a line cut short
    nasmvt("train-supernet", "--resume", "--out", "out")
    assert logged(log) == whole(60)


def test_an_interrupted_retraining_goes_on(nasmvt):
    write_experiment(one_task, retrain=ONE_TASK)
    nasmvt("train-supernet", "tiny.yaml", "--out", "out")
    folder = Path("out/retrain/smallest")
    process = start("retrain", "out", "--arch", "smallest")
    said = stop(process, folder / "metrics.jsonl", 4, signal.SIGTERM)
    assert process.returncode == 2
    assert "pass --resume as well" in said
    assert "finish it with --resume" in nasmvt.refused("export", "out", "--arch", "smallest")
    nasmvt("retrain", "out", "--arch", "smallest", "--resume")
    assert logged(folder / "metrics.jsonl") == whole(60)
    nasmvt("export", "out", "--arch", "smallest")


def test_an_interrupted_search_goes_on_where_it_was(nasmvt):
    many = {"population": 16, "parents": 2, "generations": 2, "mutants": 8, "crossovers": 8, "workers": 0}
    write_experiment(one_task, search={**many, "recalibration_images": 4})
    nasmvt("train-supernet", "tiny.yaml", "--out", "out", "--set", "training.steps=1")
    journal = Path("out/search/journal.jsonl")
    process = start("search", "out")
    said = stop(process, journal, 6, signal.SIGINT)
    assert process.returncode == 2
    assert said == "interrupted: what was finished is kept; run the same command again to go on\n"
    before = [line for line in lines_of(journal) if line.endswith("\n")]
    nasmvt("search", "out")
    after = lines_of(journal)
    assert after[: len(before)] == before
    assert len(after) > len(before)
    entries = [json.loads(line) for line in after[1:]]
    counted = Counter((entry["kind"], entry.get("id", entry.get("generation"))) for entry in entries)
    assert set(counted.values()) == {1}


def test_a_loss_that_is_not_finite_names_task_step_and_arch(nasmvt):
    write_experiment(training={**ONE_TASK, "lr": 1e3, "clip": None, "checkpoint_every": 1})
    sentence = nasmvt.refused("train-supernet", "tiny.yaml", "--out", "out")
    assert "the loss of task 'cls' is not finite at step " in sentence
    assert "arch depth=" in sentence
    step = int(sentence.partition("at step ")[2].partition(" ")[0])
    log = Path("out/supernet/metrics.jsonl")
    assert logged(log) == whole(step - 1)[:-1]
    assert nasmvt.refused("train-supernet", "--resume", "--out", "out") == sentence
    assert logged(log) == whole(step - 1)[:-1]


def test_a_training_that_exploded_goes_on_from_its_last_checkpoint_with_a_lower_rate(nasmvt):
    write_experiment(one_task, training={**ONE_TASK, "steps": 4})
    nasmvt("train-supernet", "tiny.yaml", "--out", "out")
    config = Path("out/config.yaml")
    gentle = config.read_text().replace("steps: 4\n", "steps: 12\n", 1)
    config.write_text(gentle.replace("lr: 0.001", "lr: 1000.0").replace("clip: 1.0", "clip: null"))
    assert "is not finite" in nasmvt.refused("train-supernet", "--resume", "--out", "out")
    config.write_text(gentle)
    nasmvt("train-supernet", "--resume", "--out", "out")
    assert logged(Path("out/supernet/metrics.jsonl")) == [*whole(4), *whole(12)[4:]]


def test_a_training_and_a_search_are_written_by_one_process_at_a_time(nasmvt, monkeypatch):
    write_experiment(one_task, training={**ONE_TASK, "steps": 2}, retrain={**ONE_TASK, "steps": 2})
    nasmvt("train-supernet", "tiny.yaml", "--out", "out")
    monkeypatch.setattr("nasmvt.files._PATIENCE", 0.1)
    with held(Path("out/supernet")), held(Path("out/search")):
        for words in (("train-supernet", "--resume", "--out", "out"), ("search", "out")):
            assert "another one is at it: wait for it, or end it" in nasmvt.refused(*words)
    nasmvt("search", "out")
