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
    from nasmvt.tasks.config import TaskConfig
    from nasmvt.tasks.detection import DetectionNetwork, DetectionPrediction
    from nasmvt.tasks.heads import HeadConfig, HeadParts, register_head
    from nasmvt.tasks.kinds import KINDS, Kind
    from nasmvt.tasks.linear import LinearConfig
    from nasmvt.tasks.mask_rcnn import MaskRCNNConfig
    from nasmvt.tasks.network import Prediction, TaskMetric, TaskNetwork
    from nasmvt.tasks.segmentation import SegmentationMetric, SegmentationNetwork, SegmentationPrediction
    from nasmvt.tasks.task import Task
    from nasmvt.tasks.upernet import UPerNetConfig

_HOME = {
    "ClassificationMetric": "classification",
    "ClassificationNetwork": "classification",
    "ClassificationPrediction": "classification",
    "CocoMetric": "coco_metric",
    "HeadConfig": "heads",
    "HeadParts": "heads",
    "register_head": "heads",
    "KINDS": "kinds",
    "Kind": "kinds",
    "LinearConfig": "linear",
    "MaskRCNNConfig": "mask_rcnn",
    "TaskConfig": "config",
    "UPerNetConfig": "upernet",
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
    "KINDS",
    "ClassificationMetric",
    "ClassificationNetwork",
    "ClassificationPrediction",
    "CocoMetric",
    "DetectionNetwork",
    "DetectionPrediction",
    "HeadConfig",
    "HeadParts",
    "Kind",
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
    "register_head",
]

__getattr__ = importer(__name__, _HOME)
