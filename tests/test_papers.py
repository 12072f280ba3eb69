"""Recipes of the papers: each is the published network, and its head trains."""

import pytest
import torch

from nasmvt.config import parse
from nasmvt.data.types import DataInfo
from nasmvt.families import family
from nasmvt.pipeline.experiment import Experiment, load_experiment
from nasmvt.resources import shipped
from nasmvt.tasks import KINDS
from nasmvt.tasks.build import build_network, build_skeleton
from nasmvt.tasks.task import Task
from tests.conftest import make_batch
from tests.tasks.test_published import DETECTORS, ROWS

PAPERS = shipped("experiments/papers")
DETECTION = [name for name in PAPERS if name in DETECTORS]
COCO = tuple(f"class {i}" for i in range(80))
OUTPUTS = {"deformable_detr_mpvit_small": 11 * 257}
"""Parameters of outputs that the published network has beyond COCO's 80 classes."""


DENSE_MAPS = [name for name in PAPERS if name in ROWS]
CLASSIFIERS_NORM = {"semantic_fpn_scalable_vit_small": 1024, "upernet_scalable_vit_small": 1024}
"""Parameters of the norm before the classifier, which the paper's figures count and a dense task does not have."""


def recipe(name: str) -> tuple[Experiment, Task]:
    experiment = load_experiment(PAPERS[name])
    info = DataInfo(kind="detection", classes=COCO, has_masks=True)
    return experiment, Task(name="det", config=experiment.tasks["det"], info=info)


@pytest.mark.parametrize("name", DETECTION)
def test_a_recipe_of_a_detector_trains_the_published_network(name: str) -> None:
    experiment, task = recipe(name)
    family(experiment.space.family).check(experiment.space)
    assert experiment.space.smallest == experiment.space.largest
    network = build_skeleton(experiment.space, task, experiment.space.largest, "meta")
    assert sum(p.numel() for p in network.parameters()) == DETECTORS[name] - OUTPUTS.get(name, 0)


@pytest.mark.parametrize("name", DENSE_MAPS)
def test_a_recipe_of_segmentation_holds_the_published_network(name: str) -> None:
    experiment = load_experiment(f"papers/{name}")
    ((task_name, config),) = experiment.tasks.items()
    task = Task(name=task_name, config=config, info=KINDS.get(config.kind).nominal)
    network = build_skeleton(experiment.space, task, experiment.space.named("published"), "meta")
    assert sum(p.numel() for p in network.parameters()) == ROWS[name][0] - CLASSIFIERS_NORM.get(name, 0)
    assert experiment.retrain.steps == experiment.training.steps


def test_every_recipe_is_named_after_a_published_network() -> None:
    assert set(PAPERS) == {*DETECTION, *DENSE_MAPS}


def test_every_published_kind_of_detector_has_a_recipe() -> None:
    heads = {recipe(name)[1].config.head.type for name in DETECTION}
    assert heads == {"retinanet", "mask_rcnn", "cascade_mask_rcnn", "deformable_detr"}


@pytest.mark.parametrize("name", ["retinanet_mpvit_small", "deformable_detr_mpvit_small"])
def test_a_step_of_a_recipe(name: str) -> None:
    experiment, task = recipe(name)
    network = build_network(experiment.space, task, experiment.space.largest).train()
    loss = sum(network.loss(*make_batch("detection")).values())
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.head.parameters())
    assert parse(type(task.config), task.config.model_dump(mode="json"), name) == task.config
