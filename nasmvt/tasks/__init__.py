"""Tasks: the network, loss, prediction and metric of each kind, evaluation and recalibration.

The functions `evaluate`, `recalibrate`, `draw_targets` and `draw_prediction` are imported from their modules:
the first two have the same names as theirs.
"""

from typing import TYPE_CHECKING

from nasmvt.lazy import lazy_names

if TYPE_CHECKING:
    from nasmvt.tasks.cascade import CascadeMaskRCNNConfig as CascadeMaskRCNNConfig
    from nasmvt.tasks.classification import ClassificationMetric as ClassificationMetric
    from nasmvt.tasks.classification import ClassificationNetwork as ClassificationNetwork
    from nasmvt.tasks.classification import ClassificationPrediction as ClassificationPrediction
    from nasmvt.tasks.coco_metric import CocoMetric as CocoMetric
    from nasmvt.tasks.config import TaskConfig as TaskConfig
    from nasmvt.tasks.deformable_detr import DeformableDETRConfig as DeformableDETRConfig
    from nasmvt.tasks.detection import DetectionNetwork as DetectionNetwork
    from nasmvt.tasks.detection import DetectionPrediction as DetectionPrediction
    from nasmvt.tasks.heads import HeadConfig as HeadConfig
    from nasmvt.tasks.heads import HeadParts as HeadParts
    from nasmvt.tasks.heads import register_head as register_head
    from nasmvt.tasks.kinds import KINDS as KINDS
    from nasmvt.tasks.kinds import Kind as Kind
    from nasmvt.tasks.linear import LinearConfig as LinearConfig
    from nasmvt.tasks.mask_rcnn import MaskRCNNConfig as MaskRCNNConfig
    from nasmvt.tasks.network import Prediction as Prediction
    from nasmvt.tasks.network import TaskMetric as TaskMetric
    from nasmvt.tasks.network import TaskNetwork as TaskNetwork
    from nasmvt.tasks.retinanet import RetinaNetConfig as RetinaNetConfig
    from nasmvt.tasks.segformer import SegFormerConfig as SegFormerConfig
    from nasmvt.tasks.segmentation import SegmentationMetric as SegmentationMetric
    from nasmvt.tasks.segmentation import SegmentationNetwork as SegmentationNetwork
    from nasmvt.tasks.segmentation import SegmentationPrediction as SegmentationPrediction
    from nasmvt.tasks.semantic_fpn import SemanticFPNConfig as SemanticFPNConfig
    from nasmvt.tasks.task import Task as Task
    from nasmvt.tasks.upernet import UPerNetConfig as UPerNetConfig

__getattr__, __all__ = lazy_names(__name__)
