"""Registry of heads: their names in a configuration, the kind of task they serve, and how they are built."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from torch import nn

from nasmvt.config import Config
from nasmvt.data.types import DataInfo
from nasmvt.registry import Registry


class HeadConfig(Config):
    """Settings of a head; base class of every head's settings."""

    reads_token_labels: ClassVar[bool] = False
    """Whether it is trained on the token labels of `data.token_labels`."""

    choices: ClassVar[Mapping[str, str]] = {}
    """The widths that a space may choose, by part and setting as in the names of choices, with the fields that hold
    them: {"neck.width": "neck_width"} lets `neck.seg.width` choose. A head or neck that is narrower has the leading
    slice of every tensor of the wider one, as narrower backbones do."""

    type: str
    """Which head this is: a registered name, or `module:name` for one that a module of yours registers."""

    map_norm: Literal["batch", "layer"] | None = None
    """Norm of each of the backbone's maps where it enters the neck: `batch` norms a channel over the images, `layer` a
    cell over its channels. For backbones that begin with published weights, whose features are large; null: none."""

    def own(self, *without: str) -> dict[str, Any]:
        """Return the settings that this head has and not every head, as plain values, without some of them."""
        return self.model_dump(exclude={*HeadConfig.model_fields, *without})

    def check_data(self, info: DataInfo) -> None:
        """Refuse data that the head can't be trained on.

        Raises:
            UserError: with the reason.
        """

    def check_batch(self, images: int) -> None:
        """Refuse a number of images per training step with which the head can't learn.

        Raises:
            ValueError: with the reason.
        """


@dataclass(frozen=True, kw_only=True)
class HeadParts:
    """The parts of a task network after the backbone.

    A head turns maps into the outputs that its kind of network needs, and into losses:

    - `losses(maps, targets, sizes) -> dict of scalars`, in training mode;
    - `classify`, `detect` or `segment(maps, sizes)`, in evaluation mode (see the kind's network);
    - `workload(maps)` performs the largest possible work of an evaluation once, without reading values.

    `maps` are those of the neck, `sizes` the height and width of each image on the canvas, without padding.
    """

    neck: nn.Module
    """Turns the backbone's maps into those that the head reads."""
    head: nn.Module
    auxiliary: nn.Module | None = None
    """A head of which only `losses` is used."""


Builder = Callable[[Sequence[int], Sequence[int], Any, DataInfo], HeadParts]
"""`build(widths, strides, config, info)`: for a backbone whose maps have these channels and strides."""

B = TypeVar("B", bound=Builder)


@dataclass(frozen=True, kw_only=True)
class HeadType:
    """A way to build heads."""

    kind: str
    """The kind of task that it serves."""
    config: type[HeadConfig]
    """Its settings."""
    build: Builder


_BUILTIN = (
    *(
        "linear",
        "class_attention",
        "mask_rcnn",
        "cascade",
        "retinanet",
        "deformable_detr",
        "upernet",
        "semantic_fpn",
        "segformer",
    ),
    "panoptic_fpn",
)

HEADS: Registry[HeadType] = Registry("head", [f"nasmvt.tasks.{name}" for name in _BUILTIN])
"""The heads by name."""


def register_head(name: str, *, kind: str, config: type[HeadConfig]) -> Callable[[B], B]:
    """Register a builder as the head `name`.

    Args:
        name: the value of `head.type`.
        kind: the kind of task that it serves.
        config: its settings.

    Raises:
        UserError: on decoration, if another module has registered a head of that name.
    """

    def decorate(build: B) -> B:
        HEADS.add(name, HeadType(kind=kind, config=config, build=build), build.__module__)
        return build

    return decorate
