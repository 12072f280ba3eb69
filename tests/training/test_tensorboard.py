"""What a training records arrives in TensorBoard; a resumed one replaces what it repeats."""

import importlib.util

import pytest
import torch

from nasmvt.errors import UserError
from nasmvt.training import Trainer, TrainingConfig
from nasmvt.training.checkpoint import Checkpoints
from nasmvt.training.metrics import MetricsLog
from nasmvt.training.tensorboard import TensorBoard
from tests.training.toy import Toy, ToyLoader

pytestmark = pytest.mark.filterwarnings("default")  # TensorBoard's own


def train(space, folder, steps):
    toy = Toy(space)
    trainer = Trainer(
        toy,
        {name: ToyLoader() for name in toy.tasks},
        TrainingConfig(steps=steps, warmup_steps=1, log_every=1, checkpoint_every=2),
        seed=0,
        metrics=MetricsLog(folder / "metrics.jsonl"),
        checkpoints=Checkpoints(folder / "checkpoint.pt"),
        device=torch.device("cpu"),
        evaluate=lambda: {"largest": {"cls": {"top1": 12.5}}},
        recorders=[TensorBoard(folder / "tensorboard")],
    )
    trainer.resume()
    trainer.run()


def test_scalars_are_those_of_the_metrics(space, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(space, tmp_path, 2)
    train(space, tmp_path, 4)
    found = events.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    entries = MetricsLog(tmp_path / "metrics.jsonl").read()
    losses = {entry["step"]: entry["loss"]["seg"]["square"] for entry in entries if "loss" in entry}
    assert {event.step: event.value for event in found.Scalars("loss/seg/square")} == pytest.approx(losses)
    assert [(event.step, event.value) for event in found.Scalars("metrics/largest/cls/top1")] == [(2, 12.5), (4, 12.5)]
    assert "steps_per_second" in found.Tags()["scalars"]
    assert "step" not in found.Tags()["scalars"]


def test_without_tensorboard_the_setting_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs TensorBoard: pip install 'nasmvt\[tensorboard\]'"):
        TensorBoard(tmp_path)
