"""Maps are normed where they enter the neck, and masks start alike whatever the maps are."""

import math

import pytest
import torch

from nasmvt.config import parse
from nasmvt.supernet import Supernet
from nasmvt.tasks import Task, TaskConfig
from tests.conftest import TINY_TASKS, make_batch, make_tasks


def with_norm(task: Task, norm: str | None) -> Task:
    values = {**TINY_TASKS[task.name], "head": {**TINY_TASKS[task.name].get("head", {}), "map_norm": norm}}
    return Task(name=task.name, config=parse(TaskConfig, values, task.name), info=task.info)


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("name", ["cls", "det", "seg"])
def test_what_a_head_reads_does_not_depend_on_the_scale_of_the_backbones_maps(space, norm, name) -> None:
    network = Supernet(space, {name: with_norm(make_tasks()[name], norm)}).networks[name].train()
    images, _ = make_batch(TINY_TASKS[name]["kind"], size=4)
    maps = [m.detach() for m in network.backbone(network.normalize(images))]
    small, large = network.neck[0](maps), network.neck[0](tuple(100 * m for m in maps))
    for a, b, m in zip(small, large, maps, strict=True):
        assert a.shape == m.shape
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-3)
        assert float(a.detach().std()) == pytest.approx(1, abs=0.1)


def test_by_default_there_is_no_norm_and_names_stay(space) -> None:
    supernet = Supernet(space, make_tasks())
    assert not [name for name, _ in supernet.named_parameters() if ".neck.0." in name]


def test_the_first_loss_of_masks_is_ln_2_for_maps_of_any_scale(space) -> None:
    network = Supernet(space, {"det": make_tasks()["det"]}).networks["det"].train()
    images, targets = make_batch("detection")
    maps = network.neck(network.backbone(network.normalize(images)))
    for scale in (1, 30):
        losses = network.head.losses(tuple(scale * m for m in maps), targets, [(32, 32)] * 2)
        assert float(losses["loss_mask"].detach()) == pytest.approx(math.log(2), abs=0.05)
