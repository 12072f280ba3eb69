from collections.abc import Callable
from typing import Any

import pytest

from nasmvt.config import parse
from nasmvt.data.types import DataInfo
from nasmvt.errors import UserError
from nasmvt.tasks import (
    ClassificationNetwork,
    DetectionNetwork,
    LinearConfig,
    MaskRCNNConfig,
    SegmentationNetwork,
    Task,
    TaskConfig,
    TaskNetwork,
    UPerNetConfig,
)


def test_the_head_is_that_of_the_kind() -> None:
    assert isinstance(TaskConfig(kind="classification").head, LinearConfig)
    assert isinstance(TaskConfig(kind="detection").head, MaskRCNNConfig)
    assert isinstance(TaskConfig(kind="segmentation").head, UPerNetConfig)


def test_a_head_may_be_given_in_part_and_comes_back_from_its_dump() -> None:
    config = parse(TaskConfig, {"kind": "detection", "head": {"width": 64}}, "x.yaml")
    assert isinstance(config.head, MaskRCNNConfig)
    assert config.head.width == 64
    assert parse(TaskConfig, config.model_dump(mode="json"), "x.yaml") == config
    assert TaskConfig(kind="detection", head=config.head) == config


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"kind": "detection", "head": {"type": "linear"}}, "'mask_rcnn' by default, but 'head.type' is 'linear'"),
        ({"kind": "detection", "head": {"type": "mask_rnn"}}, "did you mean 'mask_rcnn'"),
        ({"kind": "segmentation", "batch_size": 2, "head": {"norm": "batch"}}, "fewer than 3 images at a time"),
        ({"kind": "detection", "head": {"widht": 3}}, "unknown key 'head.widht' in x.yaml; did you mean 'width'"),
        ({"kind": "segmentatoin"}, "unknown kind of task 'segmentatoin'; did you mean 'segmentation'"),
        ({"kind": "classification", "head": {"label_smoothing": 1.5}}, "label_smoothing"),
        ({}, "kind"),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        parse(TaskConfig, values, "x.yaml")


@pytest.mark.parametrize("head", [{"norm": "batch", "pool_scales": [2, 3]}, {"norm": "group"}, {}])
def test_a_batch_of_one_is_fine_without_batch_norm_over_single_cells(head: dict[str, Any]) -> None:
    values = {"kind": "segmentation", "batch_size": 1, "head": head}
    assert parse(TaskConfig, values, "x.yaml").batch_size == 1


def test_a_task_must_fit_its_data() -> None:
    shapes = DataInfo(kind="detection", classes=("a",))
    with pytest.raises(UserError, match="its data are for detection"):
        Task(name="t", config=TaskConfig(kind="classification"), info=shapes)
    wants_masks = parse(TaskConfig, {"kind": "detection", "head": {"masks": True}}, "x.yaml")
    with pytest.raises(UserError, match="masks are asked for"):
        Task(name="t", config=wants_masks, info=shapes)
    many = DataInfo(kind="segmentation", classes=tuple(str(i) for i in range(256)))
    with pytest.raises(UserError, match="at most 255 classes"):
        Task(name="t", config=TaskConfig(kind="segmentation"), info=many)


def test_each_kind_has_its_network_and_primary_metric(
    make_task: Callable[..., Task], make_network: Callable[[Task], TaskNetwork]
) -> None:
    expected = {
        "classification": (ClassificationNetwork, "top1"),
        "detection": (DetectionNetwork, "box_map"),
        "segmentation": (SegmentationNetwork, "miou"),
    }
    for kind, (network, primary) in expected.items():
        task = make_task(kind)
        assert type(make_network(task)) is network
        assert task.primary == task.metric().primary == primary
        assert primary in task.metric().compute()
