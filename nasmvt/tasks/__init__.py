"""Tasks: the network, loss, prediction and metric of each kind, evaluation and recalibration."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nasmvt.tasks.classification import (
        ClassificationMetric,
        ClassificationNetwork,
        ClassificationPrediction,
    )
    from nasmvt.tasks.coco_metric import CocoMetric
    from nasmvt.tasks.config import HeadConfig, LinearConfig, MaskRCNNConfig, TaskConfig, UPerNetConfig
    from nasmvt.tasks.detection import DetectionNetwork, DetectionPrediction
    from nasmvt.tasks.draw import draw_prediction, draw_targets
    from nasmvt.tasks.evaluate import evaluate
    from nasmvt.tasks.network import Prediction, TaskMetric, TaskNetwork
    from nasmvt.tasks.recalibrate import recalibrate
    from nasmvt.tasks.segmentation import SegmentationMetric, SegmentationNetwork, SegmentationPrediction
    from nasmvt.tasks.task import Task

_HOME = {
    "ClassificationMetric": "classification",
    "ClassificationNetwork": "classification",
    "ClassificationPrediction": "classification",
    "CocoMetric": "coco_metric",
    "HeadConfig": "config",
    "LinearConfig": "config",
    "MaskRCNNConfig": "config",
    "TaskConfig": "config",
    "UPerNetConfig": "config",
    "DetectionNetwork": "detection",
    "DetectionPrediction": "detection",
    "Prediction": "network",
    "TaskMetric": "network",
    "TaskNetwork": "network",
    "SegmentationMetric": "segmentation",
    "SegmentationNetwork": "segmentation",
    "SegmentationPrediction": "segmentation",
    "Task": "task",
}

__all__ = [
    "ClassificationMetric",
    "ClassificationNetwork",
    "ClassificationPrediction",
    "CocoMetric",
    "DetectionNetwork",
    "DetectionPrediction",
    "HeadConfig",
    "LinearConfig",
    "MaskRCNNConfig",
    "Prediction",
    "SegmentationMetric",
    "SegmentationNetwork",
    "SegmentationPrediction",
    "Task",
    "TaskConfig",
    "TaskMetric",
    "TaskNetwork",
    "UPerNetConfig",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that reading a `TaskConfig` does not load torchvision."""
    if name not in _HOME:
        raise AttributeError(f"module 'nasmvt.tasks' has no attribute {name!r}")
    return getattr(import_module(f"nasmvt.tasks.{_HOME[name]}"), name)
