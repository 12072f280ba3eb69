"""Training in 16 bits: an overflow costs a step, not the training; a resumed training goes on with the same scale."""

import json
from itertools import pairwise

import pytest
import torch

from nasmvt.errors import UserError
from nasmvt.training import Trainer, TrainingConfig
from nasmvt.training.checkpoint import Checkpoint, Checkpoints
from nasmvt.training.metrics import MetricsLog
from tests.training.toy import Toy, ToyLoader


class Small(Toy):
    """Its losses times 2^16 are within fp16."""

    def forward(self, arch, task, batch):
        return {name: loss.float() * 1e-3 for name, loss in super().forward(arch, task, batch).items()}


@pytest.fixture
def make(space, tmp_path):
    def make(folder="run", **settings) -> Trainer:
        torch.manual_seed(0)
        toy = Small(space)
        config = TrainingConfig(**{"steps": 6, "warmup_steps": 1, "log_every": 1, "precision": "fp16", **settings})
        loaders = {name: ToyLoader() for name in toy.tasks}
        metrics = MetricsLog(tmp_path / folder / "metrics.jsonl")
        checkpoints = Checkpoints(tmp_path / folder / "checkpoint.pt")
        device = torch.device("cpu")
        return Trainer(toy, loaders, config, seed=0, metrics=metrics, checkpoints=checkpoints, device=device)

    return make


def overflowing(trainer: Trainer, steps: set[int]) -> Trainer:
    """Let a gradient overflow in some steps, counted from 0."""
    trainer.trainable.common.weight.register_hook(lambda grad: grad * float("inf") if trainer.step in steps else grad)
    return trainer


def weights_by_step(trainer: Trainer) -> list[dict[str, torch.Tensor]]:
    """Train; return the weights before the first step and after each."""
    seen = [{name: value.clone() for name, value in trainer.trainable.state_dict().items()}]

    class Watch:
        def on_step(self, *_):
            seen.append({name: value.clone() for name, value in trainer.trainable.state_dict().items()})

    trainer.listener = Watch()
    trainer.run()
    return seen


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[bool]:
    return [torch.equal(first[name], second[name]) for name in first]


def test_a_step_that_overflows_is_skipped_and_counted(make):
    trainer = overflowing(make(), {2})
    weights = weights_by_step(trainer)
    assert [all(same(*two)) for two in pairwise(weights)] == [False, False, True, False, False, False]
    lines = [
        json.loads(line) for line in trainer.checkpoints.newest.with_name("metrics.jsonl").read_text().splitlines()
    ]
    assert [line["skipped_steps"] for line in lines] == [0, 0, 1, 1, 1, 1]
    assert Checkpoint.load(trainer.checkpoints.newest).update["scale"] == 2.0**15


def test_a_resumed_training_goes_on_with_the_scale_and_the_count(make):
    whole = overflowing(make("whole"), {1, 4})
    whole.run()
    overflowing(make(steps=3), {1}).run()
    resumed = overflowing(make(), {4})
    resumed.resume()
    resumed.run()
    first, second = (Checkpoint.load(trainer.checkpoints.newest).update for trainer in (whole, resumed))
    assert first == second
    assert first["skipped"] == 2


def test_gradients_that_overflow_at_any_scale_end_the_training(make):
    trainer = overflowing(make(steps=40), set(range(40)))
    with pytest.raises(UserError, match=r"overflow fp16 whatever .* set training\.precision to bf16 or fp32"):
        trainer.run()
    assert trainer.step == 17  # 2^16 was halved to 2^-1


def test_the_precision_may_change_between_two_trainings(make):
    make(steps=2).run()
    other = make(steps=4, precision="bf16")
    other.resume()
    other.run()
    assert Checkpoint.load(other.checkpoints.newest).update == {}
    again = make(steps=6)
    again.resume()
    again.run()
    assert Checkpoint.load(again.checkpoints.newest).update["scale"] == 2.0**16


def test_a_checkpoint_of_the_second_format_goes_on(make):
    half = make(steps=3, precision="fp32")
    half.run()
    path = half.checkpoints.newest
    content = torch.load(path, weights_only=True)
    del content["update"]
    torch.save({**content, "format": 2}, path)
    resumed = make(precision="fp32")
    resumed.resume()
    assert resumed.step == 3
    assert len(resumed.optimizer.state_dict()["state"]) == len(list(resumed.trainable.trained()))
