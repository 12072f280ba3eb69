"""A step cut into parts: the same images, the same gradients, as far as losses are means over images."""

from unittest import mock

import pytest
import torch

from tests.training.equal_parts import difference, in_order, make

STEPS = 8


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
    assert difference(weights, parts.trainable.state_dict()) < 1e-6
    assert difference(weights, start) > 1e-2
    for task, losses in trainer._ledger.last.items():
        assert parts._ledger.last[task] == pytest.approx(losses, rel=1e-4)


def test_what_is_random_differs_between_parts(tmp_path):
    trainer, drawn = make(tmp_path, accumulate=2), []
    forward = trainer.trainable.forward

    def watch(arch, task, batch):
        drawn.append((task, len(batch.images), torch.rand(1).item()))
        return forward(arch, task, batch)

    trainer.trainable.forward = watch
    streams = {name: loader.batches(0, trainer.parts) for name, loader in trainer.loaders.items()}
    trainer._step(trainer._next(streams))
    assert [place[:2] for place in drawn] == [("cls", 2), ("det", 1), ("seg", 1)] * 2
    assert len({number for *_, number in drawn}) == 6
