"""What a candidate's score does not need is not computed, and changes nothing of what is."""

import pytest
import torch

from nasmvt.config import parse
from nasmvt.data import EvalSet, open_dataset
from nasmvt.errors import UserError
from nasmvt.search import EvaluationSetting, Evaluator, Objective, Objectives
from nasmvt.search.race import RUNGS
from nasmvt.space import SearchSpace
from nasmvt.supernet import Supernet, SupernetConfig
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.task import Task
from tests.conftest import TINY_SPACE, TINY_TASKS, randomize


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    """Of the built-in data set, whose images the evaluators read."""
    tasks = {}
    for name, values in TINY_TASKS.items():
        config = parse(TaskConfig, {**values, "data": {**values["data"], "train_images": 12}}, name)
        tasks[name] = Task(name=name, config=config, info=open_dataset(config.data, config.kind, "train", 0).info)
    torch.manual_seed(0)
    supernet = Supernet(parse(SearchSpace, TINY_SPACE, "tiny"), tasks, SupernetConfig())
    randomize(supernet)
    return supernet


@pytest.fixture
def evaluator(supernet):
    def make(task: str, figures) -> Evaluator:
        config = supernet.tasks[task].config
        data = open_dataset(config.data, config.kind, "train", 0)
        images = {task: EvalSet(data, range(8), config.data, 4)}
        training = {task: EvalSet(data, range(8, 12), config.data, 4, on_canvas=True)}
        setting = EvaluationSetting(sharing=supernet.sharing(), images=images, recalibration=training, figures=figures)
        return Evaluator(supernet, setting)

    return make


@pytest.mark.parametrize(("task", "primary", "missing"), [("det", "box_map", True), ("seg", "miou", False)])
def test_what_is_left_out_does_not_change_the_rest(supernet, evaluator, task, primary, missing) -> None:
    arch = supernet.space.largest
    every, needed = evaluator(task, {})(arch, task), evaluator(task, {task: {primary}})(arch, task)
    assert ("mask_map" in every and "mask_map" not in needed) == missing
    assert {name: every[name] for name in needed} == needed
    assert set(every) - set(needed) == ({"mask_map", "mask_ap50"} if missing else set())


def test_masks_are_drawn_where_an_objective_needs_them(supernet, evaluator) -> None:
    objectives = Objectives(
        Objective.of(supernet.tasks), maximize=("t-score", "det:mask_map"), minimize=("parameters",)
    )
    assert objectives.figures == {"cls": {"top1"}, "det": {"box_map", "mask_map"}, "seg": {"miou"}}
    assert "mask_map" in evaluator("det", objectives.figures)(supernet.space.smallest, "det")


def test_a_rung_gives_the_first_metric_of_each_of_its_blocks(supernet) -> None:
    config = supernet.tasks["cls"].config
    data = open_dataset(config.data, config.kind, "train", 0)
    images = EvalSet(data, range(12), config.data, 4)
    training = {"cls": EvalSet(data, range(8, 12), config.data, 4, on_canvas=True)}
    blocks = images.blocks(6)
    arch = supernet.space.largest

    def evaluator(images, **more) -> Evaluator:
        setting = EvaluationSetting(sharing=supernet.sharing(), images={"cls": images}, recalibration=training, **more)
        return Evaluator(supernet, setting)

    def metric(images) -> float:
        return evaluator(images)(arch, "cls")["top1"]

    race = evaluator(images, blocks={"cls": blocks})
    assert race(arch, "cls", 1) == {str(place): metric(blocks[place]) for place in RUNGS[1]}
    assert race(arch, "cls")["top1"] == metric(images)


def test_a_figure_that_does_not_exist_is_named(supernet, evaluator) -> None:
    with pytest.raises(UserError, match=r"the metric of 'det' gives box_map, .*, not 'mask_mapp'; did you mean 'mask_"):
        evaluator("det", {"det": {"mask_mapp"}})


def test_a_stripped_network_has_no_mask_branch_and_detects_the_same(supernet) -> None:
    network = supernet.materialize(supernet.space.largest, tasks=("det",)).task("det")
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    before = network.predict(images)
    network.strip({"masks"})
    assert not [name for name in network.state_dict() if "mask" in name]
    for one, other in zip(before, network.predict(images), strict=True):
        assert one.masks is not None
        assert other.masks is None
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.scores, other.scores)
