"""Schedules of the learning rate, and which archs a step trains."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.pipeline.experiment import Experiment
from nasmvt.seeding import derive_seed
from nasmvt.tasks.trainable import Trained
from nasmvt.training import Trainer, TrainingConfig
from nasmvt.training.checkpoint import Checkpoints
from nasmvt.training.metrics import MetricsLog
from nasmvt.training.optimizer import NamedOptimizer
from nasmvt.training.sampling import make_sampling
from tests.conftest import tiny_experiment
from tests.training.toy import Toy, ToyLoader

LATER = range(3, 12)
"""Steps after the warm-up."""


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": "step", "step_at": (0.75, 0.5)}, [0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001, 0.001]),
        ({"schedule": "step", "step_at": (0.5,), "step_factor": 0.5}, [0.1] * 3 + [0.05] * 6),
        ({"schedule": "poly", "final_lr_fraction": 0}, [0.1 * (12 - step) / 12 for step in LATER]),
        (
            {"schedule": "poly", "poly_power": 2, "final_lr_fraction": 0},
            [0.1 * (1 - n / 12) ** 2 for n in range(3, 12)],
        ),
        ({"schedule": "cosine", "final_lr_fraction": 0}, [0.05 * (1 + np.cos(np.pi * n / 12)) for n in LATER]),
    ],
)
def test_the_learning_rate_falls_as_configured_after_the_warm_up(settings, expected):
    parameter = Trained("networks.x.weight", nn.Parameter(torch.ones(2, 2)), True)
    config = TrainingConfig(steps=12, warmup_steps=3, lr=0.1, optimizer="sgd", **settings)
    optimizer = NamedOptimizer([parameter], config)
    seen = []
    for step in range(12):
        optimizer.schedule(step)
        seen.append(optimizer.lr)
    assert seen[:3] == pytest.approx([1e-4, 1e-4 + 0.0999 / 3, 1e-4 + 2 * 0.0999 / 3])
    assert seen[3:] == pytest.approx(expected)


def test_a_single_step_has_the_peak_and_nobody_warns_of_it(caplog):
    parameter = Trained("networks.x.weight", nn.Parameter(torch.ones(2, 2)), True)
    optimizer = NamedOptimizer([parameter], TrainingConfig(steps=1, lr=0.1, warmup_steps=5))
    optimizer.schedule(0)
    assert optimizer.lr == pytest.approx(0.1)
    assert caplog.messages == []


@pytest.mark.parametrize("name", ["adafactor", "lamb", "lion", "muon", "nadamw", "rmsprop"])
def test_an_optimizer_moves_what_has_a_gradient_and_nothing_else(name):
    parameters = [nn.Parameter(torch.randn(shape)) for shape in ((4, 3), (3,), (4, 3, 2, 2), (4, 3))]
    trained = [Trained(f"networks.x.{i}", parameter, parameter.ndim > 1) for i, parameter in enumerate(parameters)]
    before = [parameter.detach().clone() for parameter in parameters]
    named = NamedOptimizer(trained, TrainingConfig(optimizer=name, lr=0.01, warmup_steps=0))
    named.schedule(0)
    sum(parameter.square().sum() for parameter in parameters[:3]).backward()
    named.optimizer.step()
    assert [not torch.equal(*pair) for pair in zip(before, parameters, strict=True)] == [True, True, True, False]


def test_an_optimizer_of_second_derivatives_is_refused():
    parameter = Trained("networks.x.weight", nn.Parameter(torch.ones(2, 2)), True)
    with pytest.raises(UserError, match="must work with gradients, but 'adahessian' needs second derivatives"):
        NamedOptimizer([parameter], TrainingConfig(optimizer="adahessian"))


class Deep(Toy):
    """Its losses depend on the arch."""

    def forward(self, arch, task, batch):
        self.seen.append(arch)
        return {name: loss * len(str(arch)) for name, loss in super().forward(arch, task, batch).items()}


def train(space, folder, **settings) -> Deep:
    torch.manual_seed(0)
    toy = Deep(space)
    toy.seen = []
    options = {"optimizer": "momentum", "lr": 0.1, "warmup_steps": 0, "clip": None, "weight_decay": 0, "log_every": 1}
    config = TrainingConfig(steps=1, schedule="poly", **options, **settings)
    files = {"metrics": MetricsLog(folder / "m.jsonl"), "checkpoints": Checkpoints(folder / "checkpoint.pt")}
    Trainer(toy, {"cls": ToyLoader()}, config, seed=3, device=torch.device("cpu"), **files).run()
    return toy


def test_a_sandwich_trains_largest_smallest_and_random_archs_in_one_step(space, tmp_path):
    toy = train(space, tmp_path, sampling="sandwich", random_archs=2)
    rng = np.random.default_rng(derive_seed(3, "arch", 0))
    assert toy.seen == [space.largest, space.smallest, space.sample(rng), space.sample(rng)]
    torch.manual_seed(0)
    plain = Toy(space)
    losses = plain(space.largest, "cls", next(ToyLoader().batches()))
    mean = sum(len(str(arch)) for arch in toy.seen) / 4
    (sum(losses.values()) * mean).backward()
    torch.testing.assert_close(toy.common.weight, plain.common.weight - 0.1 * plain.common.weight.grad)
    entry = json.loads((tmp_path / "m.jsonl").read_text().splitlines()[0])
    assert entry["loss"]["cls"]["square"] == pytest.approx(losses["square"].item() * mean)
    assert 0 <= entry["data_share"] <= 1


def test_uniform_sampling_trains_one_arch(space, tmp_path):
    toy = train(space, tmp_path)
    assert toy.seen == [space.sample(np.random.default_rng(derive_seed(3, "arch", 0)))]


def test_the_largest_arch_may_be_trained_alone_at_first(space):
    toy = Deep(space)
    sample = make_sampling(TrainingConfig(largest_first=3))
    for step in range(5):
        want = space.sample(np.random.default_rng(0)) if step >= 3 else space.largest
        assert sample(toy, np.random.default_rng(0), step) == [want]


def test_a_retraining_has_one_arch_and_refuses_a_sandwich():
    for setting, value in (("sampling", "sandwich"), ("largest_first", 5)):
        values = tiny_experiment()
        values["retrain"][setting] = value
        with pytest.raises(UserError, match=f"a retraining trains one arch, but '{setting}' is {value!r}"):
            parse(Experiment, values, "tiny")
