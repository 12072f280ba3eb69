"""Tasks: the network, loss, prediction and metric of each kind, evaluation and recalibration.

The functions `evaluate`, `recalibrate`, `draw_targets` and `draw_prediction` are imported from their files:
the first two have the names of theirs.
"""

from typing import TYPE_CHECKING

from nasmvt.lazy import importer

if TYPE_CHECKING:
    from nasmvt.tasks.classification import (
        ClassificationMetric,
        ClassificationNetwork,
        ClassificationPrediction,
    )
    from nasmvt.tasks.coco_metric import CocoMetric
    from nasmvt.tasks.config import HeadConfig, LinearConfig, MaskRCNNConfig, TaskConfig, UPerNetConfig
    from nasmvt.tasks.detection import DetectionNetwork, DetectionPrediction
    from nasmvt.tasks.network import Prediction, TaskMetric, TaskNetwork
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

__getattr__ = importer(__name__, _HOME)
