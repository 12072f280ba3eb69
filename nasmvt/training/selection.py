"""What is trained, and how fast: parameters and layers named by patterns."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from nasmvt.errors import UserError, nearest
from nasmvt.space.sharing import fits
from nasmvt.tasks.blocks import blocks_of, depths
from nasmvt.tasks.trainable import Trainable, Trained
from nasmvt.training.config import TrainingConfig


def selected(trainable: Trainable, config: TrainingConfig) -> list[Trained]:
    """Return the parameters that are trained; those of frozen layers get no gradients from now on.

    Raises:
        UserError: if a pattern fits nothing, or everything is frozen.
    """
    parameters = list(trainable.trained())
    names = {item.plain for item in parameters}
    check_patterns("freeze", config.freeze, names)
    check_patterns("lr_scale", config.lr_scale, names)
    kept = [item for item in parameters if not _any(config.freeze, item.plain)]
    if not any(item.decays for item in kept):
        raise UserError("training.freeze leaves nothing to train: remove a pattern")
    frozen = {id(item.parameter) for item in parameters} - {id(item.parameter) for item in kept}
    for item in parameters:
        item.parameter.requires_grad_(id(item.parameter) not in frozen)
    trainable.frozen_norms = config.frozen_norms
    if config.sync_norm:
        trainable.synchronise_norms()
    return kept if config.layer_decay == 1 else _decayed(trainable, parameters, kept, config.layer_decay)


def _decayed(trainable: Trainable, every: Sequence[Trained], kept: Sequence[Trained], decay: float) -> list[Trained]:
    """Give parameters the factor of their learning rate that follows from their depth; neck, head and scores have 1."""
    blocks = blocks_of(trainable.space, "training.layer_decay")
    networks: dict[str, list[str]] = {}
    for item in every:
        if item.name.startswith("networks."):
            networks.setdefault(item.name.split(".")[1], []).append(item.plain)
    found = depths(networks.values(), blocks)
    deepest = max(found.values())
    return [item._replace(scale=decay ** (deepest - found.get(item.plain, deepest))) for item in kept]


def groups_of(parameters: Iterable[Trained], scales: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return parameter groups of an optimizer: one for each factor of the learning rate, with and without decay."""
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for item in parameters:
        scale = lr_scale(item, scales) * item.scale
        settings = {"lr_scale": scale} if scale != 1 else {}
        still = {} if item.decays else {"weight_decay": 0.0}
        groups.setdefault((scale, item.decays), {"params": [], **settings, **still})["params"].append(item.parameter)
    return [groups[key] for key in sorted(groups, key=lambda key: (key[0] != 1, key[0], not key[1]))]


def lr_scale(item: Trained, scales: Mapping[str, float]) -> float:
    """Return the factor of a parameter's learning rate: that of the last pattern that its name fits."""
    found = [scale for pattern, scale in scales.items() if fits(pattern, item.plain)]
    return found[-1] if found else 1.0


def check_patterns(setting: str, patterns: Iterable[str], names: Collection[str]) -> None:
    """Refuse a pattern that no name fits.

    Raises:
        UserError: naming it.
    """
    for pattern in patterns:
        if not any(fits(pattern, name) for name in names):
            raise UserError(
                f"every pattern of training.{setting} must fit a parameter, named as in a task network, but "
                f"{pattern!r} fits none{nearest(pattern, names) or ': fix or remove it'}"
            )


def _any(patterns: Sequence[str], name: str) -> bool:
    return any(fits(pattern, name) for pattern in patterns)
