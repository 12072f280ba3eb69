"""Exported classification networks as timm's models: importing this module registers `nasmvt`.

    import timm
    import nasmvt.export.timm_model

    model = timm.create_model("nasmvt", folder="my-model", task="cls", pretrained=True, num_classes=10)

As with timm's own, `pretrained=False` draws fresh weights, images are normalised by `pretrained_cfg`, and
`features_only=True` gives the maps that the backbone has for this task.

Shapes: B batch, C channels, K classes, H, W of the last map.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn

from nasmvt.errors import UserError, listed
from nasmvt.export.loading import load
from nasmvt.tasks.build import build_network
from nasmvt.tasks.modes import evaluating
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.task import Task


class TimmClassifier(nn.Module):
    """A backbone and a linear layer on the mean of its last map, with the methods that timm's models have.

    Args:
        network: what they are taken from.
        task: of the network.
        num_classes: outputs K, 0 for none; another number than the network's gets a fresh layer. None: the network's.
        global_pool: "avg", or "" for none.
        drop_rate: probability of dropping a pooled channel while training.
    """

    def __init__(
        self,
        network: TaskNetwork,
        task: Task,
        num_classes: int | None = None,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        widths, strides = _declared(network.backbone)
        self.backbone = network.backbone
        self.num_features = self.head_hidden_size = widths[-1]
        self.feature_info = [
            {"num_chs": width, "reduction": stride, "module": f"maps.{place}"}
            for place, (width, stride) in enumerate(zip(widths, strides, strict=True))
        ]
        self.global_pool, self.num_classes = _pooling(global_pool), len(task.info.classes)
        self.head_drop = nn.Dropout(drop_rate)
        self.head: nn.Module = network.head.fc
        if num_classes not in (None, self.num_classes):
            self.reset_classifier(int(num_classes))

    def forward_features(self, x: Tensor) -> Tensor:
        """Turn normalised images into the last map (B, C, H, W)."""
        last: Tensor = self.backbone(x)[-1]
        return last

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Turn the last map into logits (B, K), or into what the linear layer reads."""
        if self.global_pool:
            x = x.mean(dim=(2, 3))
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Turn normalised images into logits (B, K)."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return maps of the backbone, and the last one before them unless `intermediates_only`."""
        maps = self.backbone(x)
        chosen = [maps[place] for place in self._places(indices)]
        return chosen if intermediates_only else (maps[-1], chosen)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] | None = None, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Take out what the maps do not need, the linear layer; return the places of the maps."""
        if prune_head:
            self.reset_classifier(0, "")
        return self._places(indices)

    def _places(self, indices: int | Sequence[int] | None) -> list[int]:
        """Return which maps are meant: all (None), so many of the last ones, or these, negative ones from the end."""
        every = list(range(len(self.feature_info)))
        if indices is None:
            return every
        return every[-indices:] if isinstance(indices, int) else [every[place] for place in indices]

    def get_classifier(self) -> nn.Module:
        """Return the linear layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a fresh linear layer in place, or none for 0 classes, and maybe another pooling."""
        if global_pool is not None:
            self.global_pool = _pooling(global_pool)
        self.num_classes = num_classes
        if not num_classes:
            self.head = nn.Identity()
            return
        self.head = nn.Linear(self.num_features, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def no_weight_decay(self) -> set[str]:
        """Return the parameters that are not to decay."""
        own: set[str] = getattr(self.backbone, "no_weight_decay", set)()
        return {f"backbone.{name}" for name in own}


def _cfg(network: TaskNetwork, task: Task) -> dict[str, Any]:
    """Return what timm's tools read: input, normalisation, names of the first and the last layer."""
    height, width = task.nominal_size
    modules = network.backbone.named_modules()
    convolutions = [f"backbone.{name}" for name, module in modules if isinstance(module, nn.Conv2d)]
    with evaluating(network), torch.no_grad():
        last: Tensor = network.backbone(torch.zeros(1, 3, height, width))[-1]
    return {
        "architecture": "nasmvt",
        "num_classes": len(task.info.classes),
        "label_names": list(task.info.classes),
        "input_size": (3, height, width),
        "fixed_input_size": False,
        "pool_size": tuple(last.shape[2:]),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": task.config.data.mean,
        "std": task.config.data.std,
        "first_conv": convolutions[0] if convolutions else (),
        "classifier": "head",
    }


def _declared(backbone: Any) -> tuple[Sequence[int], Sequence[int]]:
    """Return the widths and strides of a backbone's maps."""
    return backbone.widths, backbone.strides


def _pooling(name: str) -> str:
    if name not in ("", "avg"):
        raise UserError(f"global_pool must be 'avg', or '' for none, not {name!r}")
    return name


@register_model
def nasmvt(
    pretrained: bool = False,
    *,
    folder: Path | str | None = None,
    task: str | None = None,
    num_classes: int | None = None,
    in_chans: int = 3,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    **settings: Any,
) -> nn.Module:
    """Return a classification network of an exported folder as a timm model.

    Args:
        pretrained: whether it has the folder's weights, or fresh ones.
        folder: the folder.
        task: None: its only classification task.
        num_classes: None: the task's.
        in_chans: 3.
        features_only: whether the maps of the backbone are wanted alone.
        out_indices: of such maps; None: all.
        settings: `global_pool` and `drop_rate`; timm's `pretrained_cfg`, `pretrained_cfg_overlay` and `cache_dir` have
            no influence.

    Raises:
        UserError: if the folder has no such task, or its head is not a linear one.
    """
    if folder is None:
        raise UserError("the timm model 'nasmvt' is read from an exported folder: pass folder='my-model'")
    if in_chans != 3:
        raise UserError(f"the networks of nasmvt read 3 channels, but in_chans is {in_chans}: leave it out")
    loaded = load(folder)
    fitting = [name for name, item in loaded.model.tasks.items() if item.info.kind == "classification"]
    if task is None and len(fitting) != 1:
        raise UserError(f"{folder} must have one classification task, or 'task' name it, but it has {listed(fitting)}")
    described = loaded.task(task or fitting[0]).task
    network = loaded.networks[described.name]
    if not isinstance(getattr(network.head, "fc", None), nn.Linear):
        raise UserError(
            f"a timm model ends in a linear layer, but the head of '{described.name}' is another: name a task "
            "with the head 'linear', without 'hidden'"
        )
    if not pretrained:
        network = build_network(loaded.model.space, described, loaded.model.arch)
    for ignored in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        settings.pop(ignored, None)
    if features_only:
        every = range(len(_declared(network.backbone)[0]))
        settings |= {"features_only": True, "out_indices": every if out_indices is None else out_indices}
    model: nn.Module = build_model_with_cfg(
        TimmClassifier,
        "nasmvt",
        False,  # the weights are there already
        pretrained_cfg=_cfg(network, described),
        feature_cfg={"feature_cls": "getter"},
        kwargs_filter=("in_chans",),
        network=network,
        task=described,
        num_classes=len(described.info.classes) if num_classes is None else num_classes,
        **settings,
    )
    return model
