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
        ({"kind": "detection", "head": {"type": "linear"}}, "has the head 'mask_rcnn'"),
        ({"kind": "segmentation", "batch_size": 1}, "2 or more images"),
        ({"kind": "detection", "head": {"widht": 3}}, "widht"),
        ({"kind": "panoptic"}, "kind"),
        ({"kind": "classification", "head": {"label_smoothing": 1.5}}, "label_smoothing"),
        ({}, "kind"),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        parse(TaskConfig, values, "x.yaml")


def test_a_batch_of_one_is_fine_without_a_pool_of_one() -> None:
    values = {"kind": "segmentation", "batch_size": 1, "head": {"pool_scales": [2, 3]}}
    assert parse(TaskConfig, values, "x.yaml").batch_size == 1


def test_a_task_must_fit_its_data() -> None:
    shapes = DataInfo(kind="detection", classes=("a",))
    with pytest.raises(UserError, match="its data are for detection"):
        Task(name="t", config=TaskConfig(kind="classification"), info=shapes)
    wants_masks = parse(TaskConfig, {"kind": "detection", "head": {"masks": True}}, "x.yaml")
    with pytest.raises(UserError, match="asks for masks"):
        Task(name="t", config=wants_masks, info=shapes)
    assert not Task(name="t", config=TaskConfig(kind="detection"), info=shapes).masks
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
