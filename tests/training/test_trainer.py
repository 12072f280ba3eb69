"""The loop: one step runs every task, stops leave a checkpoint, what is not finite is refused."""

import os
import signal

import pytest
import torch

from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.pipeline.datasets import infos_of, open_data
from nasmvt.pipeline.experiment import Experiment
from nasmvt.pipeline.run import make_tasks
from nasmvt.pipeline.supernet import build_supernet
from nasmvt.supernet import Supernet
from nasmvt.tasks.network import TaskNetwork
from nasmvt.training import Trainer, TrainingConfig
from nasmvt.training.checkpoint import Checkpoint, Checkpoints, load_weights
from nasmvt.training.interrupt import Interrupted, deferred
from nasmvt.training.metrics import MetricsLog
from tests.conftest import tiny_experiment

EXPERIMENT = parse(Experiment, tiny_experiment(), "tiny")
CPU = torch.device("cpu")


def metrics_of(folder) -> MetricsLog:
    return MetricsLog(folder / "run" / "metrics.jsonl")


def checkpoints_of(folder) -> Checkpoints:
    return Checkpoints(folder / "run" / "checkpoint.pt")


class Hook:
    """Calls a function after a step."""

    def __init__(self, at: int, action) -> None:
        self.at, self.action = at, action

    def on_step(self, step, steps, losses, lr):
        if step == self.at:
            self.action()

    def on_evaluation(self, step, metrics):
        pass


@pytest.fixture(scope="module")
def data():
    return open_data(EXPERIMENT)


@pytest.fixture
def tasks(data):
    return make_tasks(EXPERIMENT, infos_of(data))


@pytest.fixture
def supernet(data):
    return build_supernet(EXPERIMENT, infos_of(data))


@pytest.fixture
def trainer(supernet, data, tmp_path):
    def make(listener=None, **settings) -> Trainer:
        config = TrainingConfig(**{"steps": 4, "warmup_steps": 1, "checkpoint_every": 100, "log_every": 1, **settings})
        loaders = {name: item.train_loader() for name, item in data.items()}
        files = {"metrics": metrics_of(tmp_path), "checkpoints": checkpoints_of(tmp_path)}
        return Trainer(supernet, loaders, config, seed=0, device=CPU, listener=listener, **files)

    return make


def test_a_step_moves_what_the_arch_uses_and_nothing_else(trainer, supernet, space):
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    with torch.no_grad():
        for score in supernet.scores.values():
            score.fill_(0.9)
    supernet.draw = lambda rng: space.smallest
    trainer(steps=1).run()
    after = supernet.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    for task in supernet.tasks:
        assert f"networks.{task}.backbone.patch_embed.weight" in moved
        assert f"networks.{task}.backbone.blocks.0.fc1.weight" not in moved  # shared by its score: no decay either
        assert not any(f"networks.{task}.backbone.blocks.4." in name for name in moved)  # beyond the depth
    assert "shared.backbone/blocks/0/fc1/weight" in moved


def test_ctrl_c_ends_between_two_steps_with_a_checkpoint(trainer, tmp_path):
    hook = Hook(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as caught, deferred() as signals:
        trainer(hook).run(signals)
    assert caught.value.step == 2
    assert Checkpoint.load(tmp_path / "run" / "checkpoint.pt").step == 2
    assert signal.getsignal(signal.SIGINT) is before


def test_channels_are_last_where_the_training_says_so(trainer, monkeypatch):
    seen, learn = [], TaskNetwork.learn
    monkeypatch.setattr(
        TaskNetwork, "learn", lambda self, *given: seen.append(self.channels_last) or learn(self, *given)
    )
    for wanted in (None, False):
        trainer(steps=1, channels_last=wanted).run()
    assert seen == [True] * 3 + [False] * 3  # the family is trained so, unless the training says otherwise


def test_a_loss_that_is_not_finite_names_task_step_and_arch(trainer, supernet, space, tmp_path):
    steps = iter(range(10))

    def draw(rng):
        if next(steps) == 2:
            with torch.no_grad():
                supernet.networks["seg"].get_parameter("head.classifier.bias").fill_(float("nan"))
        return space.smallest

    supernet.draw = draw
    with pytest.raises(UserError, match=r"task 'seg' is not finite at step 3 .*arch depth="):
        trainer(checkpoint_every=1).run()
    checkpoint = Checkpoint.load(tmp_path / "run" / "checkpoint.pt")
    assert checkpoint.step == 2
    assert all(torch.isfinite(value).all() for value in checkpoint.weights.values())


def test_gradients_that_are_not_finite_are_never_saved(trainer, supernet, tmp_path):
    weight = supernet.networks["cls"].get_parameter("head.fc.weight")
    steps = iter(range(10))
    weight.register_hook(lambda grad: grad * float("inf") if next(steps) == 2 else grad)
    with pytest.raises(UserError, match=r"gradients are not finite at step 3 .*arch depth="):
        trainer(steps=8, checkpoint_every=2, log_every=100).run()  # noticed when step 4 was to be saved
    checkpoint = Checkpoint.load(tmp_path / "run" / "checkpoint.pt")
    assert checkpoint.step == 2
    assert all(torch.isfinite(value).all() for value in checkpoint.weights.values())


def test_log_has_a_line_per_step_after_a_resume(trainer, tmp_path):
    first = trainer(Hook(3, lambda: os.kill(os.getpid(), signal.SIGINT)))
    with pytest.raises(Interrupted), deferred() as signals:
        first.run(signals)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss": {}}\n{"step": 5, "lo')  # written after the checkpoint, the last one torn
    again = trainer()
    again.resume()
    again.run()
    assert [entry["step"] for entry in metrics_of(tmp_path).read()] == [1, 2, 3, 4]


def test_the_learning_rate_warms_up_and_falls(trainer):
    seen = []
    made = trainer(steps=8, warmup_steps=3, lr=0.01, final_lr_fraction=0.1)
    made.listener = Hook(-1, None)
    made.listener.on_step = lambda step, steps, losses, lr: seen.append(lr)
    made.run()
    assert seen[0] < seen[1] < seen[2] < seen[3]
    assert seen[3:] == sorted(seen[3:], reverse=True)
    assert max(seen) <= 0.01
    assert seen[-1] >= 0.001


def test_no_decay_for_scores_norms_and_position_embeddings(trainer, supernet):
    names = {id(value): name for name, value in supernet.named_parameters()}
    groups = trainer(weight_decay=0.3).optimizer.optimizer.param_groups
    free = {names[id(p)] for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    for name in names.values():
        exempt = name.startswith("scores.") or "norm" in name or name.endswith("bias") or "pos_embed" in name
        if exempt:
            assert name in free, name
    assert not any(name.endswith("fc1.weight") and "blocks" in name for name in free)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choices": {"embed_dim": {"options": [16, 32]}}}, r"belongs to the space 'tiny', which differs from 'tiny'"),
        ({"fixed": {"head_dim": 16}}, "belongs to the space 'tiny'"),
    ],
)
def test_a_checkpoint_of_another_space_is_refused(trainer, space, tasks, change, message, tmp_path):
    trainer(steps=1).run()
    merged = {
        **space.model_dump(mode="json"),
        **{k: {**space.model_dump(mode="json")[k], **v} for k, v in change.items()},
    }
    other = Supernet(type(space).model_validate(merged), tasks)
    with pytest.raises(UserError, match=message):
        load_weights(other, checkpoints_of(tmp_path))


def test_a_checkpoint_of_other_classes_is_refused(trainer, space, tasks, tmp_path):
    from dataclasses import replace

    trainer(steps=1).run()
    info = replace(tasks["seg"].info, classes=("one", "two"))
    other = Supernet(space, {**tasks, "seg": replace(tasks["seg"], info=info)})
    with pytest.raises(UserError, match="written for task 'seg'"):
        load_weights(other, checkpoints_of(tmp_path))


def test_damaged_and_missing_checkpoints_are_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(UserError, match="there is no checkpoint"):
        Checkpoint.load(path)
    path.write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        Checkpoint.load(path)
    torch.save({"format": 7}, path)
    with pytest.raises(UserError, match="not a checkpoint of format 4"):
        Checkpoint.load(path)


def test_unknown_optimizer_is_refused(trainer):
    with pytest.raises(UserError, match=r"not 'adamww' .*did you mean 'adamw'"):
        trainer(optimizer="adamww")
