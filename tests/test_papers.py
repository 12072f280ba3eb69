"""Recipes of the papers: each is the published network, and its head trains."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import nasmvt
from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.families import family, published_names
from nasmvt.pipeline.experiment import Experiment, load_experiment
from nasmvt.resources import shipped
from nasmvt.tasks import KINDS
from nasmvt.tasks.build import build_network, build_skeleton
from nasmvt.tasks.task import Task
from tests.conftest import make_batch
from tests.tasks.test_published import DETECTORS, ROWS

PAPERS = shipped("experiments/papers")
ROWS_OF = {name: name.removesuffix("_3x") for name in PAPERS}
"""The published network of each recipe."""
DETECTION = [name for name, row in ROWS_OF.items() if row in DETECTORS]
CLASSIFIERS = [name for name, row in ROWS_OF.items() if row in published_names()]
DENSE_MAPS = [name for name, row in ROWS_OF.items() if row in ROWS]
COCO = tuple(f"class {i}" for i in range(80))
OUTPUTS = {"deformable_detr_mpvit_small": 11 * 257}
"""Parameters of outputs that the published network has beyond COCO's 80 classes."""
CLASSIFIERS_NORM = {"small": 1024, "base": 1536, "large": 2048}
"""Parameters of the norm before ScalableViT's classifier, which the paper's figures count and a dense task lacks."""


def recipe(name: str) -> tuple[Experiment, Task]:
    experiment = load_experiment(f"papers/{name}")
    ((task_name, config),) = experiment.tasks.items()
    info = KINDS.get(config.kind).nominal
    return experiment, Task(
        name=task_name, config=config, info=replace(info, classes=COCO) if name in DETECTION else info
    )


def parameters(name: str) -> int:
    experiment, task = recipe(name)
    family(experiment.space.family).check(experiment.space)
    single = experiment.space.smallest == experiment.space.largest
    arch = experiment.space.largest if single else experiment.space.named("published")
    assert single or experiment.retrain.steps == experiment.training.steps
    network = build_skeleton(experiment.space, task, arch, "meta")
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", DETECTION)
def test_a_recipe_of_a_detector_trains_the_published_network(name: str) -> None:
    assert parameters(name) == DETECTORS[ROWS_OF[name]] - OUTPUTS.get(name, 0)


@pytest.mark.parametrize("name", DENSE_MAPS)
def test_a_recipe_of_segmentation_holds_the_published_network(name: str) -> None:
    norm = CLASSIFIERS_NORM[name.rpartition("_")[2]] if "scalable" in name else 0
    assert parameters(name) == ROWS[name][0] - norm


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_recipe_of_a_classifier_trains_the_published_network(name: str) -> None:
    with torch.device("meta"):
        published = nasmvt.published(name)
    assert parameters(name) == sum(p.numel() for p in published.parameters())


def test_every_recipe_is_named_after_a_published_network_and_every_row_has_one() -> None:
    assert set(PAPERS) == {*DETECTION, *DENSE_MAPS, *CLASSIFIERS}
    no_rows = {"deformable_detr_refined_mpvit_small", "deformable_detr_two_stage_mpvit_small"}
    assert {*DETECTORS, *ROWS} - no_rows <= set(ROWS_OF.values())


def test_an_experiment_changes_what_its_bases_say(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "seed: 3\nspace: vit_mvt_nano\ntraining: {steps: 5, lr: 0.1}\ntasks: {c: {kind: classification}}"
    )
    (tmp_path / "b.yaml").write_text("training: {lr: 0.2}\nretrain: {steps: 9}")
    (tmp_path / "c.yaml").write_text("base: [a.yaml, b.yaml]\nseed: 4\ntraining: {warmup_steps: 1}")
    found = load_experiment(tmp_path / "c.yaml", ["retrain.lr=0.3"])
    assert (found.name, found.seed) == ("c", 4)
    assert (found.training.steps, found.training.lr, found.training.warmup_steps) == (5, 0.2, 1)
    assert (found.retrain.steps, found.retrain.lr) == (9, 0.3)
    for text, message in (
        ("base: c.yaml", "must not be its own base"),
        ("base: [3]", "'base' must be the name of an experiment"),
        ("base: nowhere", "there is no experiment 'nowhere'"),
    ):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(UserError, match=message):
            load_experiment(tmp_path / "c.yaml")


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
