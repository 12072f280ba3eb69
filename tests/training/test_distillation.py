"""Distillation in place: the largest arch teaches the others what it said in the same step."""

import shutil
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nasmvt.config import parse
from nasmvt.data import DataInfo
from nasmvt.data.types import ImageInfo
from nasmvt.errors import UserError
from nasmvt.heads.sizes import Sizes
from nasmvt.seeding import derive_seed
from nasmvt.supernet import Supernet
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.lessons import DistillationConfig, Features, SoftLabels
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.task import Task
from nasmvt.tasks.teaching import check_lessons
from nasmvt.training import TrainingConfig
from nasmvt.training.processes import ALONE
from tests.conftest import TINY_TASKS, make_batch, randomize
from tests.training.equal_parts import difference, in_order, make
from tests.training.group import together

SANDWICH = {"sampling": "sandwich", "random_archs": 1, "distillation": {"labels": 0.5}}
DEFAULTS = DistillationConfig()


def both(shape) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(shape, requires_grad=True), torch.randn(shape, requires_grad=True)


def test_soft_labels_are_the_divergence_from_the_teacher():
    own, other = both((3, 5))
    sizes, config = Sizes([(8, 8)] * 3, (8, 8)), DistillationConfig(temperature=2, soft_labels=3, labels=0.5)
    losses = {"loss_class": torch.tensor(4.0)}
    taught = SoftLabels(own, sizes).taught(losses, SoftLabels(other, sizes).detached(), config)
    expected = F.kl_div((own / 2).log_softmax(1), (other / 2).softmax(1), reduction="batchmean")
    torch.testing.assert_close(taught["loss_soft_labels"], 3 * 4 * expected)
    assert taught["loss_class"] == 2
    taught["loss_soft_labels"].backward()
    assert own.grad.abs().sum() > 0
    assert other.grad is None


def test_what_a_teacher_says_of_padding_teaches_nothing():
    own, other = both((2, 4, 4, 6))
    sizes = Sizes([(16, 24), (8, 13)], (16, 24))  # of the second image half the rows, and the centres of 3 columns
    for kind, name in ((SoftLabels, "loss_soft_labels"), (Features, "loss_features")):

        def lesson(tensor, kind=kind):
            return kind(tensor if kind is SoftLabels else [tensor], sizes)

        loss = lesson(own).taught({}, lesson(other).detached(), DEFAULTS)[name]
        (gradient,) = torch.autograd.grad(loss, own)
        assert gradient[0].abs().amin() > 0
        assert gradient[1, :, :2, :3].abs().amin() > 0
        assert gradient[1, :, 2:].abs().sum() == gradient[1, :, :, 3:].abs().sum() == 0
        assert lesson(own).taught({}, lesson(own).detached(), DEFAULTS)[name] == 0


def test_features_are_compared_by_their_size():
    own, other = both((2, 4, 3, 3))
    sizes = Sizes([(8, 8)] * 2, (8, 8))
    losses = [
        Features([factor * own, factor * own], sizes).taught({}, Features([factor * other] * 2, sizes), DEFAULTS)
        for factor in (1, 1000)
    ]
    torch.testing.assert_close(*(loss["loss_features"] for loss in losses))
    zeros = Features([torch.zeros(2, 4, 3, 3)], sizes)
    assert zeros.taught({}, Features([other], sizes).detached(), DEFAULTS)["loss_features"] == pytest.approx(1)


@pytest.mark.parametrize("kind", ["classification", "segmentation", "detection", "panoptic"])
def test_the_small_learn_from_the_large_and_not_the_large_from_the_small(space, kind):
    """Every shipped head teaches something whose loss vanishes where both say the same."""
    head = {"detection": TINY_TASKS["det"]["head"], "segmentation": TINY_TASKS["seg"]["head"]}
    if kind == "panoptic":
        detector = {k: v for k, v in TINY_TASKS["det"]["head"].items() if k != "strides"}
        head[kind] = {**detector, "strides": [4, 8], "semantic_channels": 16, "semantic_groups": 4}
    config = parse(TaskConfig, {"kind": kind, "data": {"image_size": 32}, "head": head.get(kind)}, kind)
    info = DataInfo(kind=kind, classes=("a", "b", "c"), has_masks=kind != "classification", things=2)
    tasks = {"t": Task(name="t", config=config, info=info)}
    check_lessons(space, tasks)
    supernet = Supernet(space, tasks)
    randomize(supernet)
    images, targets = make_batch(kind)
    infos = [ImageInfo(id=0, size=(32, 32), valid=(32, 32)), ImageInfo(id=1, size=(32, 32), valid=(20, 32))]
    networks = [supernet.subnet(arch, "t").train() for arch in (space.largest, space.smallest)]
    large, small = (network.learn(images, targets, infos).lesson for network in networks)
    teacher = large.detached()
    taught, itself = (lesson.taught({}, teacher, DEFAULTS) for lesson in (small, large))
    assert all(loss == 0 for loss in itself.values())
    assert all(loss > 0 for loss in taught.values())
    sum(taught.values()).backward()
    grad = supernet.networks["t"].backbone.patch_embed.weight.grad
    width = space.smallest["embed_dim"]
    assert grad[:width].abs().sum() > 0
    assert grad[width:].abs().sum() == 0


class Recorder:
    """Counts the passes of a training and keeps what was taught."""

    def __init__(self, monkeypatch) -> None:
        self.passes, self.teachers = [], []
        learn, taught = TaskNetwork.learn, SoftLabels.taught

        def count(network, *arguments):
            learned = learn(network, *arguments)
            self.passes.append(learned.lesson)
            return learned

        def keep(lesson, losses, teacher, config):
            self.teachers.append(teacher)
            return taught(lesson, losses, teacher, config)

        monkeypatch.setattr(TaskNetwork, "learn", count)
        monkeypatch.setattr(SoftLabels, "taught", keep)


def test_the_teacher_is_not_run_again_in_16_bits_neither(tmp_path, monkeypatch):
    trainer, seen = make(tmp_path, steps=1, precision="bf16", **SANDWICH), Recorder(monkeypatch)
    trainer.run()
    assert len(seen.passes) == 3 * 3  # archs times tasks
    assert all(not teacher.logits.requires_grad for teacher in seen.teachers)
    assert [torch.equal(t.logits, seen.passes[i % 2 * 2].logits) for i, t in enumerate(seen.teachers)] == [True] * 4
    losses = trainer._ledger.last
    assert losses["cls"].keys() == {"loss_class", "loss_soft_labels"}
    assert "loss_features" in losses["det"]
    assert losses["seg"].keys() == {"loss_seg", "loss_soft_labels"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.randperm", in_order)
        trainer = make(tmp_path_factory.mktemp("whole"), steps=2, checkpoint_every=1, **SANDWICH)
        trainer.run()
    return trainer


def train(processes, folder, **settings):
    trainer = make(folder, processes, steps=2, **SANDWICH, **settings)
    trainer.run()
    return trainer.trainable.state_dict(), trainer._take.archs(1)


def test_parts_distil_as_the_whole_step(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.randperm", in_order)
    parts, _ = train(ALONE, tmp_path, accumulate=2)
    assert difference(whole.trainable.state_dict(), parts) < 1e-6


def test_a_resumed_training_distils_as_an_uninterrupted_one(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.randperm", in_order)
    shutil.copy(whole.checkpoints.newest.with_suffix(".1.pt"), tmp_path / "checkpoint.pt")
    resumed = make(tmp_path, steps=2, **SANDWICH)
    resumed.resume()
    assert resumed.step == 1
    resumed.run()
    weights = whole.trainable.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in resumed.trainable.state_dict().items())


def test_processes_with_archs_of_their_own(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.randperm", in_order)
    (first, archs), (second, others) = together(2, partial(train, archs="per-process"), tmp_path)
    assert all(torch.equal(first[name], second[name]) for name in first)
    space = whole.trainable.space
    drawn = [space.sample(np.random.default_rng(derive_seed(0, "arch", 1, rank))) for rank in range(2)]
    assert archs == others == [[space.largest, space.smallest, arch] for arch in drawn]
    assert difference(first, whole.trainable.state_dict()) > 1e-4
    alone = make(tmp_path, steps=4, **SANDWICH, archs="per-process")
    with pytest.raises(UserError, match="was written by 2 and there is 1: start 2"):
        alone.resume()


def test_one_arch_can_teach_nobody():
    with pytest.raises(UserError, match="distillation teaches the other archs of a step, but 'sampling' is 'uniform'"):
        parse(TrainingConfig, {"distillation": {}}, "it")


def test_heads_whose_maps_depend_on_the_arch_are_refused(space, monkeypatch):
    from nasmvt.heads import LinearHead

    config = parse(TaskConfig, {"kind": "classification", "data": {"image_size": 32}}, "it")
    task = Task(name="t", config=config, info=DataInfo(kind="classification", classes=("a", "b")))

    class Own(LinearHead):
        def losses(self, maps, targets, sizes):
            return {}

    monkeypatch.setattr("nasmvt.tasks.linear.LinearHead", Own)
    with pytest.raises(UserError, match=r"the task 't' has \[16\] in the smallest and \[24\] in the largest"):
        check_lessons(space, {"t": task})
