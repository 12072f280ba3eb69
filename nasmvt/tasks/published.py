"""Published dense networks by name: backbone, neck and head, optionally with the weights that their authors released.

A row of a paper's table is a published backbone, a head with the paper's settings, and the names of its checkpoint.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nasmvt.config import parse
from nasmvt.families.published import published as published_classifier
from nasmvt.families.published import published_backbone_converter
from nasmvt.families.reference import State, check_fit, read_state, rename
from nasmvt.heads import detector_names, mm_segmentation
from nasmvt.registry import Registry
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.kinds import KINDS
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.task import Task

HeadConverter = Callable[[State, TaskNetwork], dict[str, Tensor]]
"""`convert(state, network)`: from published tensors, those of the backbone left out, to our neck's and heads'."""

_BACKBONE = "backbone."


@dataclass(frozen=True, kw_only=True)
class Dense:
    """A published dense network."""

    backbone: str
    """The name of the published network whose backbone it has."""
    kind: str
    head: Mapping[str, Any]
    """Settings of the head, its `type` among them."""
    convert: HeadConverter
    prefix: str = _BACKBONE
    """What stands before the names of the backbone in its checkpoint."""
    sizes: Mapping[str, Any] = field(default_factory=dict)
    """Sizes of the backbone that differ from those of the published classifier."""
    classes: int | None = None
    """Number of published classes; None: as many as are usual for the kind."""


DENSE: Registry[Dense] = Registry("published dense network", ["nasmvt.tasks.published_detectors"])
"""The networks by name."""


def published(
    name: str,
    *,
    classes: Sequence[str] | int | None = None,
    weights: str | Path | State | None = None,
    **changes: Any,
) -> nn.Module:
    """Return a published network: a dense one, or one of `nasmvt.families.published`.

    Args:
        name: "upernet_mpvit_small" for example; those of dense networks are in `DENSE`.
        classes: of a dense network, the names of its classes or their number; None: as many as were published.
        weights: a checkpoint of the authors, as a file or as tensors by name; None: fresh weights.
        changes: sizes of the backbone that differ from the published ones, `drop_path=0.2` for example.

    Raises:
        UserError: if there is no network of that name, or the checkpoint does not fit it.
    """
    if name not in list(DENSE):
        arguments = {} if classes is None else {"classes": classes}
        return published_classifier(name, weights=weights, **arguments, **changes)  # type: ignore[arg-type]
    entry = DENSE.get(name)
    info = KINDS.get(entry.kind).nominal
    classes = entry.classes if classes is None else classes
    if classes is not None:
        info = replace(info, classes=tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(classes))
    config = parse(TaskConfig, {"kind": entry.kind, "head": entry.head, "batch_size": 16}, name)
    backbone = published_classifier(entry.backbone, classes=None, **{**entry.sizes, **changes})
    network = Task(name=name, config=config, info=info).network(backbone)
    if weights is not None:
        _load(network, entry, weights)
    return network


def _load(network: TaskNetwork, entry: Dense, weights: str | Path | State) -> None:
    given = weights if isinstance(weights, Mapping) else read_state(weights)
    source = "the checkpoint" if isinstance(weights, Mapping) else str(weights)
    prefix = entry.prefix
    inside = {key.removeprefix(prefix): tensor for key, tensor in given.items() if key.startswith(prefix)}
    outside = {key: tensor for key, tensor in given.items() if not key.startswith(prefix)}
    converted = published_backbone_converter(entry.backbone)(inside, network.backbone)
    tensors = {f"{_BACKBONE}{key}": tensor for key, tensor in converted.items()} | entry.convert(outside, network)
    check_fit(tensors, network.state_dict(), source)
    network.load_state_dict(tensors)


def by_names(rules: mm_segmentation.Rules) -> HeadConverter:
    """Return a converter by rules from our names to the published ones."""

    def convert(state: State, network: TaskNetwork) -> dict[str, Tensor]:
        ours = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(_BACKBONE)}
        names = {theirs: name for name, theirs in zip(ours, rename(ours, rules), strict=True)}
        return {names.get(key, key): tensor for key, tensor in state.items()}

    return convert


_UPERNET = {
    "type": "upernet",
    "channels": 512,
    "aux_channels": 256,
    "aux_levels": (2,),
    "norm": "batch",
    "loss_over": "all",
}
_SEMANTIC_FPN = {"type": "semantic_fpn", "width": 256, "channels": 128, "loss_over": "all"}
_SEGFORMER = {"type": "segformer", "channels": 256, "unused": 128, "loss_over": "all"}


def _segmentation(backbone: str, head: Mapping[str, Any]) -> None:
    kind: str = head["type"]
    entry = Dense(backbone=backbone, kind="segmentation", head=head, convert=by_names(mm_segmentation.NAMES[kind]))
    DENSE.add(f"{kind}_{backbone}", entry, __name__)


for _size in ("small", "base"):
    _segmentation(f"mpvit_{_size}", _UPERNET)
for _size in ("small", "base", "large"):
    _segmentation(f"scalable_vit_{_size}", _UPERNET)
    _segmentation(f"scalable_vit_{_size}", _SEMANTIC_FPN)
_segmentation("lvt", _SEGFORMER)

_PANOPTIC_FPN = {
    "type": "panoptic_fpn",
    "convention": "mmdetection",
    "width": 96,
    "box_convs": 0,
    "box_linears": 2,
    "box_hidden": 160,
    "mask_convs": 4,
    "rpn_batch": 256,
    "roi_batch": 512,
    "pre_nms": (2000, 1000),
    "post_nms": (1000, 1000),
    "semantic_channels": 48,
    "semantic_groups": 12,
}
DENSE.add(
    "panoptic_fpn_lvt",
    Dense(
        backbone="lvt",
        kind="panoptic",
        head=_PANOPTIC_FPN,
        convert=lambda state, network: detector_names.laid_out(rename(state, detector_names.MM_PANOPTIC)),
    ),
    __name__,
)
