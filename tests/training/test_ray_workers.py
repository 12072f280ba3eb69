"""Ray's workers train as torchrun's processes do, outlive a kill, and end when they are asked to."""

import os
import signal
from pathlib import Path

import pytest
import torch

from nasmvt.errors import UserError
from nasmvt.training import Trainer, TrainingConfig
from nasmvt.training.checkpoint import Checkpoint, Checkpoints
from nasmvt.training.interrupt import Interrupted
from nasmvt.training.metrics import MetricsLog
from nasmvt.training.ray_workers import Workers, _Mailbox, train_on_ray, wanted
from tests.training.group import together
from tests.training.toy import Toy, ToyLoader

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.train.torch")
    from nasmvt.cluster import connect

    connect(None, 2)
    yield
    ray.shutdown()


class Relayed:
    def __init__(self, tell) -> None:
        self.tell = tell

    def on_step(self, *values):
        self.tell("on_step", *values)


class Work:
    """Trains a toy, as nasmvt trains: resumed where there is a checkpoint."""

    def __init__(self, space, folder: Path, steps: int, doing: str = "") -> None:
        self.space, self.folder, self.steps, self.doing = space, folder, steps, doing

    def __call__(self, processes, device=None, tell=None):
        torch.manual_seed(0)
        toy = Toy(self.space)
        draw, marker = toy.draw, self.folder / "killed"

        def watch(rng):
            if self.doing == "refuse":
                raise UserError("an image can't be read: replace it")
            if self.doing == "die" and trainer.step == 3 and processes.rank == 1 and not marker.exists():
                marker.parent.mkdir(parents=True, exist_ok=True)
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return draw(rng)

        toy.draw = watch
        metrics = MetricsLog(self.folder / "metrics.jsonl")
        checkpoints = Checkpoints(self.folder / "checkpoint.pt")
        trainer = Trainer(
            toy,
            {name: ToyLoader() for name in toy.tasks},
            TrainingConfig(steps=self.steps, warmup_steps=1, log_every=1, checkpoint_every=2),
            seed=0,
            metrics=metrics,
            checkpoints=checkpoints,
            device=torch.device("cpu"),
            listener=Relayed(tell) if tell and processes.first else None,
            processes=processes,
        )
        trainer.resume()
        trainer.run()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return Checkpoint.load(folder / "checkpoint.pt").weights


def test_a_killed_worker_costs_nothing_but_time(cluster, space, tmp_path):
    heard = []
    work = Work(space, tmp_path / "ray", steps=6, doing="die")
    hear = {"on_step": lambda step, *_: heard.append(step)}
    train_on_ray(work, Workers(count=2), "cpu", tmp_path / "notes", hear)
    together(2, Work(space, tmp_path / "plain", steps=6))
    assert (tmp_path / "ray" / "killed").exists()
    assert heard
    assert not (tmp_path / "notes").exists()
    plain, restarted = weights(tmp_path / "plain"), weights(tmp_path / "ray")
    assert all(torch.equal(plain[name], restarted[name]) for name in plain)
    steps = [entry["step"] for entry in MetricsLog(tmp_path / "ray" / "metrics.jsonl").read()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_what_a_worker_refuses_is_raised_at_once(cluster, space, tmp_path):
    work = Work(space, tmp_path / "ray", steps=6, doing="refuse")
    with pytest.raises(UserError, match="an image can't be read: replace it"):
        train_on_ray(work, Workers(count=1), "cpu", tmp_path / "notes", {})


def test_a_signal_ends_all_workers_with_one_checkpoint(cluster, space, tmp_path):
    work = Work(space, tmp_path / "ray", steps=10**6)
    sent = []

    def terminate(*_):
        if not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))

    hear = {"on_step": terminate}
    with pytest.raises(Interrupted) as caught:
        train_on_ray(work, Workers(count=2), "cpu", tmp_path / "notes", hear)
    assert Checkpoint.load(tmp_path / "ray" / "checkpoint.pt").step == caught.value.step < 10**6


def test_more_workers_than_the_cluster_holds_are_refused(cluster, tmp_path):
    with pytest.raises(UserError, match="3 workers need 3 CPU, but the Ray cluster has 2: lower --workers"):
        train_on_ray(print, Workers(count=3), "cpu", tmp_path / "notes", {})


@pytest.mark.parametrize("least", [0, 4])
def test_fewer_workers_are_some_of_all(least):
    with pytest.raises(UserError, match=f"of the 3 workers may go on, but is {least}: give 1 to 3"):
        Workers(count=3, least=least)


def test_the_first_failure_counts_and_events_are_given_once():
    box = _Mailbox()
    assert box.post("on_step", (1,)) is False
    box.close()
    assert box.post("on_step", (2,)) is True
    assert [box.collect(), box.collect()] == [[("on_step", (1,)), ("on_step", (2,))], []]
    box.fail(UserError("first"))
    box.fail(UserError("second"))
    assert str(box.failure()) == "first"


def test_options_that_contradict_each_other_are_refused(monkeypatch):
    assert wanted(0, None, None) is None
    assert wanted(4, "auto", 2) == Workers(count=4, least=2, address="auto")
    for address, least in (("auto", None), (None, 2)):
        with pytest.raises(UserError, match="but --workers is 0: pass --workers too"):
            wanted(0, address, least)
    for key, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(UserError, match="torchrun has started the processes already"):
        wanted(2, None, None)
