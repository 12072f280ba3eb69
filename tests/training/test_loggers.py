"""What a training records arrives in other programs; a resumed one goes on with the same record."""

import importlib.util

import pytest
import torch

from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.training import Trainer, TrainingConfig
from nasmvt.training.checkpoint import Checkpoints
from nasmvt.training.loggers import Logger, make_loggers
from nasmvt.training.metrics import MetricsLog
from tests.training.toy import Toy, ToyLoader

pytestmark = pytest.mark.filterwarnings("default")  # TensorBoard's own


def train(space, folder, steps, name):
    loggers = make_loggers([name], folder)
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
        recorders=loggers,
    )
    trainer.resume()
    trainer.run()
    for logger in loggers:
        logger.close()


def test_scalars_are_those_of_the_metrics(space, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(space, tmp_path, 2, "tensorboard")
    train(space, tmp_path, 4, "tensorboard")
    found = events.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    entries = MetricsLog(tmp_path / "metrics.jsonl").read()
    losses = {entry["step"]: entry["loss"]["seg"]["square"] for entry in entries if "loss" in entry}
    assert {event.step: event.value for event in found.Scalars("loss/seg/square")} == pytest.approx(losses)
    assert [(event.step, event.value) for event in found.Scalars("metrics/largest/cls/top1")] == [(2, 12.5), (4, 12.5)]
    assert "steps_per_second" in found.Tags()["scalars"]
    assert "step" not in found.Tags()["scalars"]


def test_a_run_of_mlflow_goes_on(space, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    train(space, tmp_path, 2, "mlflow")
    train(space, tmp_path, 4, "mlflow")
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("nasmvt").experiment_id])
    assert run.info.status == "FINISHED"
    entries = MetricsLog(tmp_path / "metrics.jsonl").read()
    losses = [(entry["step"], entry["loss"]["seg"]["square"]) for entry in entries if "loss" in entry]
    found = client.get_metric_history(run.info.run_id, "loss/seg/square")
    assert [(metric.step, metric.value) for metric in found] == losses


def test_a_run_of_wandb_goes_on(space, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(space, tmp_path, 2, "wandb")
    train(space, tmp_path, 4, "wandb")
    own = (tmp_path / "wandb" / "id").read_text()
    assert len(list((tmp_path / "wandb").glob(f"wandb/offline-run-*/run-{own}.wandb"))) == 2


class Failing(Logger):
    module = "json"

    def open(self, step):
        raise ConnectionError("no route to host")

    def log(self, numbers, step):
        raise AssertionError

    end = log


def test_a_logger_that_fails_does_not_end_the_training(space, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("nasmvt.training.loggers.LOGGERS", {"failing": Failing})
    train(space, tmp_path, 2, "failing")
    warnings = [record.message for record in caplog.records]
    assert warnings == ["json fails (ConnectionError: no route to host); the training goes on without it"]
    assert len(MetricsLog(tmp_path / "metrics.jsonl").read()) == 3


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_what_is_not_installed_is_refused(name, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"names {name}, which is not installed: pip install 'nasmvt\[{name}\]'"):
        make_loggers([name], tmp_path)


def test_the_older_key_is_taken():
    assert parse(TrainingConfig, {"tensorboard": True}, "it").loggers == ("tensorboard",)
    assert parse(TrainingConfig, {"tensorboard": False}, "it").loggers == ()
