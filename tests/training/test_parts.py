"""A step cut into parts, in one process or two: the same gradients, as far as losses are means over images."""

import json
import os
import shutil
import signal
from unittest import mock

import pytest
import torch

from nasmvt.tasks.network import TaskNetwork
from nasmvt.training.checkpoint import Checkpoint
from nasmvt.training.interrupt import Failed, Interrupted, Signals
from nasmvt.training.processes import ALONE
from tests.training.equal_parts import difference, in_order, make
from tests.training.group import together

STEPS = 6


@pytest.fixture(scope="module", autouse=True)
def _sampling_in_order():
    with mock.patch("torch.randperm", in_order):
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory, _sampling_in_order):
    trainer = make(tmp_path_factory.mktemp("whole"), steps=STEPS)
    start = {name: value.clone() for name, value in trainer.trainable.state_dict().items()}
    trainer.run()
    return start, trainer


def test_two_parts_train_as_one(whole, tmp_path):
    start, trainer = whole
    parts = make(tmp_path, steps=STEPS, accumulate=2)
    parts.run()
    weights = trainer.trainable.state_dict()
    assert difference(weights, parts.trainable.state_dict()) < 1e-5
    assert difference(weights, start) > 1e-2
    for task, losses in trainer._ledger.last.items():
        assert parts._ledger.last[task] == pytest.approx(losses, rel=1e-4)


def train(processes, folder, **settings):
    """Train in a process of several; return its weights, and what it has to say of its end."""
    trainer = make(folder, processes, steps=STEPS, **settings)
    trainer.run()
    return trainer.trainable.state_dict(), trainer._ledger.last


@pytest.fixture(scope="module")
def two(tmp_path_factory, _sampling_in_order):
    folder = tmp_path_factory.mktemp("two")
    return folder, together(2, train, folder)


def test_two_processes_train_as_one(whole, two):
    _, trainer = whole
    folder, ((first, losses), (second, _)) = two
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert difference(trainer.trainable.state_dict(), first) < 1e-5
    assert losses["det"] == pytest.approx(trainer._ledger.last["det"], rel=1e-4)
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in logged] == [5, 6]
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.pt", "metrics.jsonl"]


def interrupted(processes, folder):
    """Train until a signal reaches the second process alone."""
    trainer, signals = make(folder, processes, steps=STEPS), Signals()
    draw = trainer.trainable.draw

    def watch(rng):
        signals.seen = signals.seen or (processes.rank == 1 and trainer.step == 2)
        return draw(rng)

    trainer.trainable.draw = watch
    trainer.run(signals)


def resumed(processes, folder):
    trainer = make(folder, processes, steps=STEPS)
    trainer.resume()
    start = trainer.step
    trainer.run()
    return start, trainer.trainable.state_dict()


def test_a_signal_to_one_process_ends_all_and_either_number_goes_on(two, tmp_path):
    stopped = together(2, interrupted, tmp_path)
    assert [(type(error), error.step) for error in stopped] == [(Interrupted, 4), (Interrupted, 4)]
    shutil.copytree(tmp_path, tmp_path / "alone")
    (start, weights), _ = together(2, resumed, tmp_path)
    uninterrupted = two[1][0][0]
    assert start == 4
    assert all(torch.equal(weights[name], uninterrupted[name]) for name in weights)
    start, one = resumed(ALONE, tmp_path / "alone")
    assert start == 4
    assert difference(uninterrupted, one) < 1e-5


def killed(processes, folder):
    trainer = make(folder, processes, steps=STEPS, checkpoint_every=2)
    draw = trainer.trainable.draw

    def watch(rng):
        if processes.rank == 1 and trainer.step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return draw(rng)

    trainer.trainable.draw = watch
    trainer.run()


def test_a_killed_process_is_told_in_a_sentence_and_its_checkpoint_kept(tmp_path):
    left, gone = together(2, killed, tmp_path)
    assert gone is None
    assert isinstance(left, Failed)
    assert str(left).startswith("another process of the training ended or can't be reached")
    assert left.checkpoint == tmp_path / "checkpoint.pt"
    assert Checkpoint.load(left.checkpoint).step == 2


def test_what_is_random_differs_between_parts(tmp_path, monkeypatch):
    trainer, drawn = make(tmp_path, accumulate=2), []
    learn = TaskNetwork.learn

    def watch(network, images, *rest):
        drawn.append((type(network).__name__[:3], len(images), torch.rand(1).item()))
        return learn(network, images, *rest)

    monkeypatch.setattr(TaskNetwork, "learn", watch)
    streams = {name: loader.batches(0, trainer.parts) for name, loader in trainer.loaders.items()}
    trainer._step(trainer._next(streams))
    assert [place[:2] for place in drawn] == [("Cla", 2), ("Det", 1), ("Seg", 1)] * 2
    assert len({number for *_, number in drawn}) == 6
