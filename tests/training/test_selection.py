"""Learning rates by pattern, frozen parameters and frozen statistics."""

import re

import pytest
import torch

from nasmvt.data.types import Batch, ImageInfo
from nasmvt.errors import UserError
from nasmvt.model import MultiTaskModel
from nasmvt.supernet import Supernet
from nasmvt.tasks.trainable import Trained
from nasmvt.training import TrainingConfig
from nasmvt.training.optimizer import NamedOptimizer
from nasmvt.training.selection import selected
from tests.conftest import make_batch, make_tasks, randomize


@pytest.fixture(params=["supernet", "model"])
def trainable(request, space):
    tasks = {name: task for name, task in make_tasks().items() if name != "det"}
    supernet = Supernet(space, tasks)
    randomize(supernet)
    return supernet if request.param == "supernet" else supernet.materialize(space.largest, supernet.sharing("all"))


def batch_of(kind: str) -> Batch:
    images, targets = make_batch(kind, 4)
    return Batch(images=images, targets=targets, infos=[ImageInfo(id=0, size=(32, 32), valid=(32, 32))] * 4)


def step(trainable: Supernet | MultiTaskModel, config: TrainingConfig) -> None:
    optimizer = NamedOptimizer(selected(trainable, config), config)
    optimizer.schedule(config.warmup_steps)
    for name, task in trainable.tasks.items():
        batch = batch_of(task.config.kind)
        network = trainable.network_for_step(trainable.space.largest, name)
        sum(network.loss(batch.images, batch.targets, batch.infos).values()).backward()
    optimizer.optimizer.step()


def test_names_are_those_of_a_plain_network() -> None:
    parameter = torch.nn.Parameter(torch.ones(1))
    names = {
        "networks.seg.backbone.norm.weight": "backbone.norm.weight",
        "shared.backbone/blocks/0/fc1/weight": "backbone.blocks.0.fc1.weight",
        "scores.backbone/blocks/0/fc1": "scores.backbone.blocks.0.fc1",
    }
    assert {name: Trained(name, parameter, True).plain for name in names} == names


def test_frozen_parameters_and_statistics_stay_and_the_rest_moves(trainable) -> None:
    """Shared copies are frozen with the tasks' own; a parameter's freezing does not depend on its statistics'."""
    config = TrainingConfig(
        optimizer="sgd",
        lr=0.1,
        warmup_steps=1,
        steps=5,
        freeze=("backbone.blocks.*.fc1.*",),
        frozen_norms=("backbone.**",),
    )
    before = {key: tensor.clone() for key, tensor in trainable.state_dict().items()}
    step(trainable, config)
    moved = {key for key, tensor in trainable.state_dict().items() if not torch.equal(tensor, before[key])}
    frozen = {key for key in before if re.search(r"blocks\.\d\.fc1\.(weight|bias)$", key.replace("/", "."))}
    statistics = {key for key in before if "running_" in key or "num_batches" in key}
    assert frozen
    assert not moved & frozen
    assert moved & statistics == {key for key in statistics if ".backbone." not in key}
    assert any(key.endswith("stem.1.weight") for key in moved)
    parameters = {name for name, _ in trainable.named_parameters()}
    assert len(moved & parameters) > len(parameters - frozen) / 3


def test_rates_follow_the_last_pattern_that_fits(trainable) -> None:
    scales = {"backbone.**": 0.1, "backbone.norm.*": 0.5}
    config = TrainingConfig(lr=1e-3, warmup_steps=2, steps=10, lr_scale=scales)
    optimizer = NamedOptimizer(selected(trainable, config), config)
    names = {id(item.parameter): item.plain for item in trainable.trained()}
    for at in (0, 2, 9):
        optimizer.schedule(at)
        for group in optimizer.optimizer.param_groups:
            for parameter in group["params"]:
                name = names[id(parameter)]
                factor = 0.5 if name.startswith("backbone.norm.") else 0.1 if name.startswith("backbone.") else 1
                assert group["lr"] == pytest.approx(factor * optimizer.lr)
                assert (group["weight_decay"] == 0) == (parameter.ndim < 2 or "bias" in name or "pos_embed" in name)
    optimizer.schedule(2)
    assert optimizer.lr == pytest.approx(1e-3, rel=0.2)


def test_a_training_goes_on_with_other_rates(trainable, tmp_path) -> None:
    plain, scaled = (
        NamedOptimizer(selected(trainable, config), config)
        for config in (TrainingConfig(), TrainingConfig(lr_scale={"head.**": 0.3}))
    )
    for optimizer in (plain, scaled):
        for group in optimizer.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        optimizer.optimizer.step()
    state = plain.state_dict()
    scaled.load_state_dict(state, tmp_path)
    again = scaled.state_dict()["state"]
    assert again.keys() == state["state"].keys()
    assert all(torch.equal(again[name]["exp_avg"], entry["exp_avg"]) for name, entry in state["state"].items())


@pytest.mark.parametrize("setting", ["freeze", "lr_scale"])
def test_a_pattern_that_fits_nothing_is_refused(trainable, setting) -> None:
    name = "backbone.norm.weigth"
    config = TrainingConfig(**{setting: {name: 0.1} if setting == "lr_scale" else (name,)})
    message = rf"pattern of training\.{setting} .* '{name}' fits none; did you mean 'backbone\.norm\.weight'"
    with pytest.raises(UserError, match=message):
        selected(trainable, config)
    with pytest.raises(UserError, match=r"training\.freeze leaves nothing to train"):
        selected(trainable, TrainingConfig(freeze=("**",)))
