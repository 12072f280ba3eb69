"""A task: its name, its data, its network for any backbone, and its metric."""

from dataclasses import dataclass

from torch import nn

from nasmvt.data.types import IGNORE, DataInfo
from nasmvt.errors import UserError
from nasmvt.tasks.classification import ClassificationMetric, ClassificationNetwork
from nasmvt.tasks.coco_metric import CocoMetric
from nasmvt.tasks.config import LinearConfig, MaskRCNNConfig, TaskConfig, UPerNetConfig
from nasmvt.tasks.detection import DetectionNetwork
from nasmvt.tasks.network import TaskMetric, TaskNetwork
from nasmvt.tasks.segmentation import SegmentationMetric, SegmentationNetwork

_METRICS: dict[str, type[TaskMetric]] = {
    "classification": ClassificationMetric,
    "detection": CocoMetric,
    "segmentation": SegmentationMetric,
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """One of the tasks that a supernet or a model serves.

    Raises:
        UserError: if the data do not fit the configuration.
    """

    name: str
    """What the user calls it."""
    config: TaskConfig
    """Its head and weights."""
    info: DataInfo
    """What its data set says of itself."""

    def __post_init__(self) -> None:
        if self.info.kind != self.config.kind:
            raise UserError(
                f"the task '{self.name}' is {self.config.kind}, but its data are for {self.info.kind}: "
                "change its kind or its data"
            )
        head = self.config.head
        if isinstance(head, MaskRCNNConfig) and head.masks and not self.info.has_masks:
            raise UserError(
                f"the task '{self.name}' asks for masks, but not every object of its data has one: add them, or set "
                f"'head.masks' to false"
            )
        if self.config.kind == "segmentation" and len(self.info.classes) > IGNORE:
            raise UserError(
                f"a segmentation task has at most {IGNORE} classes, but '{self.name}' has "
                f"{len(self.info.classes)}: merge some"
            )

    @property
    def masks(self) -> bool:
        """Whether the task predicts object masks."""
        head = self.config.head
        if not isinstance(head, MaskRCNNConfig):
            return False
        return self.info.has_masks if head.masks is None else head.masks

    @property
    def primary(self) -> str:
        """The figure of the metric that enters the T-score."""
        return _METRICS[self.config.kind].primary

    def network(self, backbone: nn.Module) -> TaskNetwork:
        """Build neck and head on a backbone that declares `strides` and `widths`.

        Raises:
            UserError: if the neck does not fit the backbone's maps.
        """
        head, classes = self.config.head, self.info.classes
        mean, std = self.config.data.mean, self.config.data.std
        match head:
            case LinearConfig():
                return ClassificationNetwork(backbone, head, classes, mean=mean, std=std)
            case MaskRCNNConfig():
                return DetectionNetwork(backbone, head, classes, masks=self.masks, mean=mean, std=std)
            case UPerNetConfig():
                return SegmentationNetwork(backbone, head, classes, mean=mean, std=std)

    def metric(self) -> TaskMetric:
        """Return a fresh metric."""
        classes = len(self.info.classes)
        if self.config.kind == "detection":
            return CocoMetric(classes, self.masks)
        return ClassificationMetric(classes) if self.config.kind == "classification" else SegmentationMetric(classes)
