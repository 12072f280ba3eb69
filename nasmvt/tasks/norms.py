"""BatchNorm needs several values per channel, wherever it occurs in a network."""

from collections.abc import Mapping
from functools import partial

import torch
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasmvt.errors import UserError
from nasmvt.families import family
from nasmvt.space import SearchSpace
from nasmvt.tasks.build import build_skeleton
from nasmvt.tasks.task import Task


def check_norms(space: SearchSpace, tasks: Mapping[str, Task], parts: int = 1) -> None:
    """Refuse tasks whose training batches leave a BatchNorm a single value per channel, which has no variance.

    The smallest network of every task is run on `meta`, with images of the nominal size.

    Args:
        space: the search space.
        tasks: the tasks by name.
        parts: into which a training batch is cut; each goes through the network by itself.

    Raises:
        UserError: naming the task, the module and what to change; or if the family can't build networks of the space.
    """
    family(space.family).check(space)
    for name, task in tasks.items():
        batch, (height, width) = task.config.batch_size // parts, task.size(space, space.smallest)
        with torch.no_grad():
            network = build_skeleton(space, task, space.smallest, "meta").eval()
            alone = _single_values(network, torch.empty(batch, 3, height, width, device="meta"))
        if alone:
            raise UserError(
                f"BatchNorm needs two values per channel or more, but '{alone[0]}' of the task '{name}' sees one, "
                f"with 'batch_size' {task.config.batch_size}{f' in {parts} parts' if parts > 1 else ''} and images of "
                f"{height} x {width} pixels: raise one of them"
            )


def check_synchronised(device: torch.device, setting: str) -> None:
    """Refuse synchronised BatchNorms where there are none.

    Raises:
        UserError: naming what asked for them.
    """
    if device.type != "cuda":
        raise UserError(
            f"{setting} needs CUDA, as PyTorch's SyncBatchNorm computes nowhere else, but the device is {device}: "
            "leave it out"
        )


def synchronise(network: nn.Module) -> None:
    """Make the BatchNorms of a task network norm by the images of all processes; tensors and names stay."""
    convert_sync_batchnorm(network)


def _single_values(network: nn.Module, images: torch.Tensor) -> list[str]:
    """Return the names of the BatchNorms that see one value per channel."""
    found: list[str] = []

    def look(name: str, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs[0].numel() == inputs[0].shape[1]:
            found.append(name)

    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(partial(look, name))
    network.workload(images)  # type: ignore[operator]
    return found
