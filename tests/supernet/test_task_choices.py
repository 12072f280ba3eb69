"""Widths of necks and heads as choices of a space: lent, counted, drawn and exported like those of backbones."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

import nasmvt
from nasmvt.config import parse
from nasmvt.cost import Budget, Costs, count_macs, count_parameters
from nasmvt.data.types import DataInfo
from nasmvt.errors import UserError
from nasmvt.export import save
from nasmvt.space import SearchSpace
from nasmvt.supernet import Supernet, SupernetConfig
from nasmvt.supernet.structure import comparable, structure
from nasmvt.tasks.build import build_skeleton
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.heads import HEADS
from nasmvt.tasks.task import Task
from tests.conftest import CLASSES, TINY_SPACE, TINY_TASKS, make_batch, make_tasks, randomize
from tests.search.toys import every_arch
from tests.supernet.test_every_detector import HEADS as DETECTORS
from tests.supernet.test_every_head import SETTINGS as OTHERS
from tests.supernet.test_every_head import make_task

OWN = {
    "head.det.width": [8, 16],
    "head.det.box_hidden": [8, 16],
    "neck.seg.width": [8, 16, 24],
    "head.seg.channels": [8, 16],
    "head.seg.aux_channels": [4, 8],
}
"""Whatever the usual heads offer."""


def space_with(choices: dict, **backbone) -> SearchSpace:
    values = {**TINY_SPACE, "choices": {**TINY_SPACE["choices"], **backbone, **choices}}
    return parse(SearchSpace, values, "tiny")


@pytest.fixture(scope="module")
def net() -> Supernet:
    torch.manual_seed(0)
    net = Supernet(space_with(OWN), make_tasks(), SupernetConfig(score_start="uniform"))
    randomize(net)
    return net


def drawn(net: Supernet, count: int):
    rng = np.random.default_rng(0)
    return [net.space.smallest, net.space.largest, *(net.space.sample(rng) for _ in range(count))]


def test_networks_have_the_widths_that_the_arch_says(net) -> None:
    values = {**net.space.largest.to_dict(), "head.det.width": 8, "head.det.box_hidden": 8, "neck.seg.width": 24}
    model = net.materialize(net.space.arch({**values, "head.seg.channels": 8}))
    assert model.task("det").neck.widths == (8, 8, 8)
    assert model.task("det").head.roi_heads.box_predictor.scores.in_features == 8
    assert model.task("seg").neck.widths == (24,) * 4
    assert model.task("seg").head.classifier.in_channels == 8
    assert model.tasks["det"].config.head.width == 8
    assert net.tasks["det"].config.head.width == TINY_TASKS["det"]["head"]["width"]  # as the experiment says it


def test_lent_heads_are_leading_slices_and_learn_there_alone(net) -> None:
    for task in ("det", "seg"):
        net.zero_grad()
        network = net.subnet(net.space.smallest, task).train()
        own = dict(net.networks[task].named_parameters())
        for name, tensor in network.named_parameters():
            if not name.startswith("backbone."):
                assert torch.equal(tensor, own[name][tuple(map(slice, tensor.shape))]), name
        sum(network.loss(*make_batch(net.tasks[task].config.kind)).values()).backward()
        for name, tensor in network.named_parameters():
            if not name.startswith("backbone.") and own[name].grad is not None:
                outside = own[name].grad.clone()
                outside[tuple(map(slice, tensor.shape))] = 0
                assert not outside.any(), name


def test_no_network_is_built_anew_for_a_step(net) -> None:
    for arch in drawn(net, 3):
        for task in net.tasks:
            theirs = structure(build_skeleton(net.space, net.tasks[task], arch))
            ours = structure(net.subnet(arch, task))
            assert net.lenders[task].opaque is None
            assert ours.keys() == theirs.keys()
            for name, fields in theirs.items():
                for field, value in fields.items():
                    assert comparable(ours[name][field]) == comparable(value), (name, field)


def test_tables_count_what_built_networks_hold(net) -> None:
    sharing = net.sharing()
    costs = Costs(net.space, net.tasks, sharing)
    for arch in drawn(net, 5):
        assert costs.parameters(arch) == count_parameters(net.space, net.tasks, arch, sharing)
        for task in ("det", "seg"):
            assert costs.macs(task).of(arch)[0] == sum(count_macs(net.space, net.tasks[task], arch).values())


def test_archs_within_a_budget_are_drawn_uniformly() -> None:
    backbone = {"depth": [4], "num_heads": [1], "mlp_ratio": [1], "embed_dim": [16, 24]}
    per = {name: {"options": backbone[name], "per": "depth"} for name in ("num_heads", "mlp_ratio")}
    space, tasks = space_with(OWN, **{**backbone, **per}), make_tasks()
    costs = Costs(space, tasks, Supernet(space, tasks).sharing())
    sizes = {arch: costs.parameters(arch).total for arch in every_arch(space)}
    assert len(sizes) == 2 * 2 * 2 * 3 * 2 * 2
    bound = sorted(sizes.values())[len(sizes) // 2]
    within = {arch for arch, size in sizes.items() if size <= bound}
    found = Counter(Budget(parameters=bound).feasible(costs).sample(200 * len(within), np.random.default_rng(1)))
    assert set(found) == within
    statistic = sum((count - 200) ** 2 / 200 for count in found.values())
    assert abs(statistic - (len(within) - 1)) < 3 * (2 * (len(within) - 1)) ** 0.5


def test_an_exported_model_computes_what_the_candidate_computes(net, tmp_path) -> None:
    for number, arch in enumerate(drawn(net, 1)):
        model = net.materialize(arch)
        save(model, tmp_path / str(number), metrics={}, split="none", seed=0)
        loaded = nasmvt.load(tmp_path / str(number))
        assert loaded.model.arch == arch
        for name, task in net.tasks.items():
            images, _ = make_batch(task.config.kind)
            with torch.no_grad():
                ours, theirs = model.task(name).eval()(images), loaded.task(name)(images)
            if task.config.kind == "detection":
                assert all(torch.equal(a[key], b[key]) for a, b in zip(ours, theirs, strict=True) for key in a)
            else:
                assert torch.equal(ours, theirs)


def test_archs_that_know_nothing_of_heads_take_the_largest(net) -> None:
    old = {name: value for name, value in net.space.smallest.to_dict().items() if name not in OWN}
    arch = net.space.arch(old)
    assert {name: arch[name] for name in OWN} == {name: options[-1] for name, options in OWN.items()}


NARROW = {"width": 4, "box_hidden": 4, "hidden": 4, "channels": 4, "neck_width": 4, "aux_channels": 4}
NARROW |= {"semantic_channels": 4}


def offered(name: str, task) -> dict[str, list[int]]:
    """Return a narrower and the given width of everything that a head offers, each field once."""
    found: dict[str, tuple[str, list[int]]] = {}
    for key, field in task.config.head.choices.items():
        given = getattr(task.config.head, field) or 8
        has = field != "aux_channels" or task.config.head.aux_weight
        if has and given > NARROW[field]:
            found.setdefault(field, (key.replace(".", f".{name}.", 1), [NARROW[field], given]))
    return dict(found.values())


def make_detector(head: str) -> Task:
    values = {"kind": "detection", "data": {"image_size": 32}, "head": DETECTORS[head]}
    info = DataInfo(kind="detection", classes=CLASSES, has_masks=True)
    return Task(name="det", config=parse(TaskConfig, values, "det"), info=info)


@pytest.mark.parametrize("head", [*DETECTORS, *OTHERS])
def test_every_head_is_lent_narrower(head) -> None:
    task = make_detector(head) if head in DETECTORS else make_task(head)
    choices = offered(task.name, task)
    if not task.config.head.choices:
        pytest.skip("no width of it may be chosen")
    assert choices
    space = space_with(choices)
    net = Supernet(space, {task.name: task})
    randomize(net)
    model = net.materialize(space.smallest)
    for name, options in choices.items():
        field = task.config.head.choices[name.replace(f".{task.name}.", ".", 1)]
        assert getattr(model.tasks[task.name].config.head, field) == options[0]
    losses = net.subnet(space.smallest, task.name).train().loss(*make_batch(task.config.kind, size=4))
    assert torch.isfinite(sum(losses.values()))


def test_every_choosable_field_is_a_positive_count() -> None:
    for name in HEADS:
        config = HEADS.get(name).config
        assert set(config.choices.values()) <= set(config.model_fields)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"head.dett.width": [8, 16]}, "the choice head.dett.width names the task 'dett', unknown; did you mean 'det'"),
        ({"head.det.widht": [8, 16]}, "head.det.widht must choose a width of the head 'mask_rcnn'.*head.det.width"),
        ({"head.det.detections": [5, 10]}, "must choose a width of the head 'mask_rcnn'"),
        ({"head.cls.width": [8, 16]}, "the head 'linear', which has none: remove the choice"),
        ({"head.det.width": [8, 16], "neck.det.width": [8, 16]}, "both choose 'width' of the head 'mask_rcnn'"),
    ],
)
def test_choices_that_fit_no_task_are_refused(choices, message) -> None:
    with pytest.raises(UserError, match=message):
        Supernet(space_with(choices), make_tasks())


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"head.det": [8, 16]}, "called neck.TASK.SETTING or head.TASK.SETTING, not 'head.det'"),
        ({"head.det.width": {"options": [8, 16], "per": "depth"}}, "'head.det.width' is chosen once, among positive"),
        ({"head.det.width": [0.5, 1]}, "'head.det.width' is chosen once, among positive integers"),
    ],
)
def test_choices_of_another_form_are_refused(choices, message) -> None:
    with pytest.raises(UserError, match=message):
        space_with(choices)


def test_a_choice_without_effect_is_refused() -> None:
    tasks = make_tasks()
    values = {**TINY_TASKS["seg"], "head": {**TINY_TASKS["seg"]["head"], "aux_weight": 0}}
    tasks["seg"] = replace(tasks["seg"], config=parse(TaskConfig, values, "seg"))
    with pytest.raises(UserError, match=r"head\.seg\.aux_channels changes no tensor of the networks of the task 'seg'"):
        Supernet(space_with({"head.seg.aux_channels": [4, 8]}), tasks)


def test_nested_names_are_the_same() -> None:
    flat = {"head.det.width": [8, 16], "head.det.box_hidden": [8, 16]}
    assert space_with({"head": {"det": {"width": [8, 16], "box_hidden": [8, 16]}}}) == space_with(flat)
