"""The loop by itself: it asks the device for nothing between logged steps, saves first, and goes on as configured."""

import errno
import logging
from pathlib import Path

import pytest
import torch
from torch.overrides import TorchFunctionMode

from nasmvt.errors import UserError
from nasmvt.search.config import SearchConfig
from nasmvt.training import Trainer, TrainingConfig
from nasmvt.training.checkpoint import Checkpoint, Checkpoints
from nasmvt.training.interrupt import Failed, Interrupted, Signals
from nasmvt.training.metrics import MetricsLog
from tests.training.toy import Toy, ToyLoader

FIGURES = {"toy": {"cls": {"top1": 50.0}}}


@pytest.fixture
def make(space, tmp_path):
    def make(evaluate=None, listener=None, device="cpu", folder="run", **settings) -> Trainer:
        torch.manual_seed(0)
        toy = Toy(space).to(device)
        config = TrainingConfig(**{"steps": 6, "warmup_steps": 1, "log_every": 100, **settings})
        loaders = {name: ToyLoader() for name in toy.tasks}
        more = {"evaluate": evaluate, "listener": listener, "device": torch.device(device)}
        metrics = MetricsLog(tmp_path / folder / "metrics.jsonl")
        checkpoints = Checkpoints(tmp_path / folder / "checkpoint.pt", config.keep_checkpoints)
        return Trainer(toy, loaders, config, seed=0, metrics=metrics, checkpoints=checkpoints, **more)

    return make


class Questions(TorchFunctionMode):
    """Counts what makes a program wait for a device: values that become Python's."""

    ASKING = ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "numpy", "cpu", "nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in self.ASKING:
            self.asked.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("settings", [{"clip_mode": "norm"}, {"clip_mode": "value"}, {"clip": None}])
def test_steps_ask_the_device_nothing_until_they_are_logged(make, settings):
    asked = []
    for steps in (5, 50):
        trainer = make(optimizer="sgd", steps=steps, log_every=1000, checkpoint_every=1000, **settings)
        with Questions() as questions:
            trainer.run()
        asked.append(questions.asked)
        Path(trainer.checkpoints.newest).unlink()
    assert asked[0] == asked[1]  # of the end alone, however many steps there are
    assert asked[0] == ["tolist", "tolist"]  # losses and norms, then the weights' flags


def test_logging_asks_once(make):
    trainer = make(optimizer="sgd", steps=40, log_every=10, checkpoint_every=1000)
    with Questions() as questions:
        trainer.run()
    assert questions.asked == ["tolist"] * 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_steps_on_a_gpu_do_not_wait(make):
    trainer = make(device="cuda", steps=20, log_every=1000, checkpoint_every=1000)
    streams = {name: loader.batches(0) for name, loader in trainer.loaders.items()}
    trainer._step(trainer._next(streams))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            trainer._step(trainer._next(streams))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_loss_that_is_not_finite_is_named_although_it_is_read_later(make):
    trainer = make(steps=30, log_every=10)
    trainer.trainable.own["seg"].weight.register_hook(
        lambda grad: torch.full_like(grad, float("nan")) if trainer.step == 3 else grad
    )
    with pytest.raises(UserError, match=r"the gradients are not finite at step 4 \(arch depth="):
        trainer.run()
    assert not trainer.checkpoints.exist()


def test_an_error_after_values_that_are_not_finite_is_explained_by_them(make):
    trainer = make(steps=30)
    forward = trainer.trainable.forward

    def break_down(arch, task, batch):
        if trainer.step == 5:
            raise RuntimeError("index out of range")
        losses = forward(arch, task, batch)
        return {name: loss * float("inf") for name, loss in losses.items()} if trainer.step == 3 else losses

    trainer.trainable.forward = break_down
    with pytest.raises(UserError, match="the loss of task 'cls' is not finite at step 4"):
        trainer.run()


def test_the_state_is_saved_before_it_is_measured(make, caplog):
    def fail():
        assert Checkpoint.load(trainer.checkpoints.newest).step in {2, 4, 6}
        raise ZeroDivisionError("no images of this class")

    trainer = make(fail, evaluate_every=2)
    with caplog.at_level(logging.WARNING):
        trainer.run()
    assert [record.message.split(" (")[0] for record in caplog.records] == [
        f"the evaluation of step {step} failed" for step in (2, 4, 6)
    ]
    assert Checkpoint.load(trainer.checkpoints.newest).step == 6


def test_figures_that_a_kill_prevented_are_measured_on_resuming(make):
    done = []
    make(steps=6).run()
    again = make(lambda: done.append(again.step) or FIGURES)
    again.resume()
    again.run()
    third = make(lambda: done.append(third.step) or FIGURES)
    third.resume()
    third.run()
    assert done == [6]


def test_a_signal_ends_an_evaluation_at_once(make):
    signals = Signals()
    trainer = make(lambda: signals.note(15, None), steps=9, evaluate_every=4)
    with pytest.raises(Interrupted) as caught:
        trainer.run(signals)
    assert caught.value.step == 4


def test_two_signals_at_once_count_as_one(make):
    signals = Signals()
    signals.note(15, None)
    signals.note(15, None)  # to the process, and to its group
    with pytest.raises(Interrupted):
        make().run(signals)
    signals._since -= 10
    with pytest.raises(KeyboardInterrupt):
        signals.note(15, None)


def test_a_closed_terminal_ends_the_training_with_a_checkpoint(make):
    class Closed:
        def on_step(self, step, *_):
            if step == 3:
                raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(Interrupted) as caught:
        make(listener=Closed()).run()
    assert Checkpoint.load(caught.value.checkpoint).step == 3


def test_a_broken_loader_saves_what_was_trained(make):
    class Broken(ToyLoader):
        def batches(self, *place):
            stream = super().batches(*place)
            yield from (next(stream) for _ in range(3))
            raise UserError("a loader worker was killed")

    trainer = make()
    trainer.loaders["seg"] = Broken()
    with pytest.raises(Failed, match="a loader worker was killed"):
        trainer.run()
    assert Checkpoint.load(trainer.checkpoints.newest).step == 3


def test_a_full_disk_keeps_the_last_checkpoint(make, monkeypatch):
    trainer = make(checkpoint_every=2)
    original = torch.save

    def full(value, path):
        if trainer.step == 4:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        original(value, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(Failed, match=r"can't be written \(No space left on device\).*the last checkpoint is kept"):
        trainer.run()
    assert trainer.checkpoints.load().step == 2
    assert sorted(path.name for path in trainer.checkpoints.newest.parent.iterdir()) == ["checkpoint.pt"]


# -- checkpoints ------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_checkpoints_are_kept(make, keep):
    trainer = make(checkpoint_every=1, keep_checkpoints=keep)
    trainer.run()
    names = ["checkpoint.pt", "checkpoint.1.pt", "checkpoint.2.pt"][:keep]
    found = {path.name: Checkpoint.load(path).step for path in trainer.checkpoints.newest.parent.glob("*.pt")}
    assert found == dict(zip(names, (6, 5, 4), strict=False))


def test_a_damaged_checkpoint_gives_way_to_the_one_before(make, caplog):
    trainer = make(checkpoint_every=4)
    trainer.run()
    newest = trainer.checkpoints.newest
    newest.write_bytes(newest.read_bytes()[:500])
    again = make(checkpoint_every=4)
    again.resume()
    assert again.step == 4
    assert len(caplog.records) == 1
    assert "the one before" in caplog.records[0].message
    again.run()
    for name, value in trainer.trainable.state_dict().items():
        assert torch.equal(again.trainable.state_dict()[name], value)


def test_a_kill_between_two_renamings_loses_nothing(make):
    trainer = make(checkpoint_every=2)
    trainer.run()
    newest = trainer.checkpoints.newest
    newest.rename(newest.with_name("checkpoint.new.pt"))
    assert Checkpoints(newest).exist()
    assert Checkpoints(newest).load().step == 6


# -- resuming with other settings -------------------------------------------------------------------


def halves(make, first: dict, second: dict) -> dict[str, torch.Tensor]:
    signals = Signals()

    class Stop:
        def on_step(self, step, *_):
            signals.seen = step == 3

    with pytest.raises(Interrupted):
        make(listener=Stop(), **first).run(signals)
    again = make(**second)
    again.resume()
    again.run()
    return again


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lamb", "lookahead_adam", "adafactor", "lion", "nadamw"])
def test_resumed_equals_uninterrupted_with_every_optimizer(make, optimizer):
    whole = make(folder="whole", optimizer=optimizer)
    whole.run()
    resumed = halves(make, {"optimizer": optimizer}, {"optimizer": optimizer})
    for name, value in whole.trainable.state_dict().items():
        assert torch.equal(resumed.trainable.state_dict()[name], value), name


def test_edited_settings_are_honoured(make):
    edited = {"weight_decay": 0.3, "betas": (0.8, 0.9), "lr": 0.01}
    resumed = halves(make, {}, edited)
    fresh = make(folder="other", **edited)
    for ours, theirs in zip(
        resumed.optimizer.optimizer.param_groups, fresh.optimizer.optimizer.param_groups, strict=True
    ):
        assert ours["betas"] == theirs["betas"] == (0.8, 0.9)
        assert ours["weight_decay"] == theirs["weight_decay"]
        assert ours["initial_lr"] == 0.01
    again = make(steps=7)  # and back: what was edited is no part of the checkpoint
    again.resume()
    assert again.optimizer.optimizer.param_groups[0]["betas"] == (0.9, 0.999)
    assert again.optimizer.optimizer.param_groups[0]["weight_decay"] == 0.05


def test_adam_and_adamw_share_their_state(make):
    resumed = halves(make, {"optimizer": "adam", "weight_decay": 0}, {"optimizer": "adamw", "weight_decay": 0})
    whole = make(folder="whole", optimizer="adamw", weight_decay=0)
    whole.run()
    for name, value in whole.trainable.state_dict().items():
        assert torch.allclose(resumed.trainable.state_dict()[name], value, atol=1e-6), name


def test_state_that_another_optimizer_can_not_use_is_refused(make):
    with pytest.raises(
        UserError, match=r"written with the optimizer 'adamw', which keeps exp_avg, .*'sgd' keeps momen"
    ):
        halves(make, {"optimizer": "adamw"}, {"optimizer": "sgd"})


def test_betas_of_an_optimizer_without_any_are_refused(make):
    with pytest.raises(UserError, match=r"'sgd' takes no betas: leave training\.betas out"):
        make(optimizer="sgd", betas=(0.9, 0.99))


def test_a_checkpoint_of_the_first_format_serves_when_it_is_complete(make):
    trainer = make()
    trainer.run()
    path = trainer.checkpoints.newest
    content = torch.load(path, weights_only=True)
    torch.save({**content, "format": 1, "optimizer": {"state": {}, "param_groups": []}}, path)
    again = make()
    again.resume()
    assert again.step == 6
    longer = make(steps=12)
    with pytest.raises(UserError, match=r"in the middle of a training by nasmvt 0\.1\.0"):
        longer.resume()


def test_the_old_setting_of_recalibration_is_still_read():
    assert TrainingConfig.model_validate({"recalibration_batches": 4}).recalibration_images == 64
    assert SearchConfig.model_validate({"recalibration_batches": 0}).recalibration_images == 0
