"""Moving averages of the weights: their values, what sees them, and that a training goes on with both."""

import pytest
import torch

from nasmvt.training import Trainer, TrainingConfig
from nasmvt.training.averaged import Averaged
from nasmvt.training.checkpoint import Checkpoint, Checkpoints, load_weights
from nasmvt.training.metrics import MetricsLog
from tests.training.toy import Toy, ToyLoader


def test_the_average_follows_quickly_at_first_then_by_its_decay():
    state = {"weight": torch.zeros(2), "count": torch.tensor(0)}
    averaged = Averaged(state, 0.5)
    expected = 0.0
    for step, decay in ((1, 2 / 11), (2, 3 / 12), (90, 0.5)):
        state["weight"].fill_(float(step))
        state["count"].fill_(step)
        averaged.update(step)
        expected = decay * expected + (1 - decay) * step
        assert averaged.values["weight"].tolist() == pytest.approx([expected] * 2)
        assert averaged.values["count"] == step
    with averaged.applied():
        assert state["weight"].tolist() == pytest.approx([expected] * 2)
    assert state["weight"].tolist() == [90, 90]


@pytest.fixture
def make(space, tmp_path):
    def make(folder="run", seen=None, **settings) -> Trainer:
        torch.manual_seed(0)
        toy = Toy(space)

        def evaluate():
            if seen is not None:
                seen.append(toy.common.weight.detach().clone())
            return {}

        return Trainer(
            toy,
            {name: ToyLoader() for name in toy.tasks},
            TrainingConfig(**{"steps": 6, "warmup_steps": 1, "ema": 0.9, "lr": 0.1, **settings}),
            seed=0,
            metrics=MetricsLog(tmp_path / folder / "metrics.jsonl"),
            checkpoints=Checkpoints(tmp_path / folder / "checkpoint.pt"),
            device=torch.device("cpu"),
            evaluate=evaluate,
        )

    return make


def test_averages_are_evaluated_and_loaded_and_change_nothing_else(make, space):
    seen = []
    trainer, plain = make(seen=seen, evaluate_every=3), make("plain", ema=None)
    trainer.run()
    plain.run()
    checkpoint = Checkpoint.load(trainer.checkpoints.newest)
    for name, weight in plain.trainable.state_dict().items():
        assert torch.equal(checkpoint.weights[name], weight)
        assert torch.equal(trainer.trainable.state_dict()[name], weight)
    assert len(seen) == 2
    assert torch.equal(seen[1], checkpoint.averaged["common.weight"])
    assert not torch.equal(seen[1], checkpoint.weights["common.weight"])
    finished = Toy(space)
    load_weights(finished, trainer.checkpoints, 6)
    assert torch.equal(finished.common.weight, seen[1])
    assert Checkpoint.load(plain.checkpoints.newest).averaged == {}


def test_a_resumed_training_goes_on_with_weights_and_averages(make):
    whole, half, resumed = make("whole", schedule="poly"), make(schedule="poly"), make(schedule="poly")
    whole.run()
    step = half._step

    def stop(batches):
        if half.step == 3:
            half.save()
            raise KeyboardInterrupt
        step(batches)

    half._step = stop
    with pytest.raises(KeyboardInterrupt):
        half.run()
    resumed.resume()
    assert resumed.step == 3
    resumed.run()
    first, second = (Checkpoint.load(trainer.checkpoints.newest) for trainer in (whole, resumed))
    for name in first.weights:
        assert torch.equal(first.weights[name], second.weights[name])
        assert torch.equal(first.averaged[name], second.averaged[name])
