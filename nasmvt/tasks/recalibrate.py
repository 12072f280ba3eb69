"""Re-estimating the BatchNorm statistics of a subnet.

A subnet's slice of the supernet's running statistics was averaged over many subnets and fits none of
them, so every candidate gets its own before it is compared (Slimmable networks, arXiv:1903.05134, section 3).
"""

from collections.abc import Iterable

import torch
from timm.layers import DropPath
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from nasmvt.data.types import Batch
from nasmvt.heads.token_labels import Mixing
from nasmvt.precision import Precision
from nasmvt.seeding import seeded
from nasmvt.tasks.modes import keeping_modes
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.precision import autocast


def recalibrate(
    network: TaskNetwork,
    batches: Iterable[Batch],
    device: torch.device | str,
    seed: int = 0,
    precision: Precision = "fp32",
) -> None:
    """Replace the running statistics of every BatchNorm by their plain average over training batches.

    Only these statistics change: there are no gradients, dropout, drop path and mixing of tokens are off, and the
    network's mode and every momentum are restored. The same batches and seed give the same statistics. Without
    BatchNorm, or without batches, nothing happens; a head without BatchNorm is not run.

    Args:
        network: the task's network, on `device`.
        batches: a finite number of training batches.
        device: where the network is.
        seed: for the random choices of a loss (a detector's regions).
        precision: in which the network computes.
    """
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    before_head = {id(module) for part in (network.backbone, network.neck) for module in part.modules()}
    head_too = any(id(norm) not in before_head for norm in norms)
    with keeping_modes(network), torch.no_grad():
        network.train()
        for module in network.modules():
            if _drops(module):
                module.eval()
        try:
            for step, batch in enumerate(batches):
                if step == 0:
                    _start_over(norms)
                batch = batch.to(device)
                with seeded("recalibrate", seed, step), autocast(precision, device):
                    if head_too:
                        network.loss(batch.images, batch.targets, batch.infos)
                    else:
                        network.maps(batch.images)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


def _start_over(norms: list[_BatchNorm]) -> None:
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch then computes a cumulative average


def _drops(module: nn.Module) -> bool:
    return isinstance(module, _DropoutNd | DropPath | Mixing)
