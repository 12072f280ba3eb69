"""What a training pass of a network keeps in memory, measured with real tensors on the CPU."""

import re
import weakref
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nasmvt.data.types import Batch
from nasmvt.precision import Precision
from nasmvt.tasks.blocks import recomputing
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.precision import autocast


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make inside the block, as long as anything holds them.

    What kernels need while they run is not seen.

    Args:
        known: tensors that are there already, whose views count for nothing.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.live = 0
        """Bytes at present."""
        self.peak = 0
        """The most so far."""
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._seen:
            self._seen.add(key)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._gone, key, storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


def activation_bytes(
    network: TaskNetwork, batch: Batch, precision: Precision = "fp32", blocks: re.Pattern[str] | None = None
) -> int:
    """Return the most bytes that a forward and a backward pass hold beside weights, gradients and the batch.

    Args:
        network: on the CPU; its gradients and statistics change.
        batch: a training batch.
        precision: in which it computes.
        blocks: which blocks are recomputed; None: none.
    """
    network.train()
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    held = [*network.state_dict().values(), *(p.grad for p in network.parameters() if p.grad is not None)]
    known = [*held, *(leaf for leaf in tree_leaves((batch.images, batch.targets)) if isinstance(leaf, Tensor))]
    with LiveBytes([*known, *network.buffers()]) as counted:
        with autocast(precision, "cpu"), nullcontext() if blocks is None else recomputing(network, blocks):
            losses = network.loss(batch.images, batch.targets, batch.infos)
        torch.stack(list(losses.values())).sum().backward()
    return counted.peak
