"""Counting multiply-accumulates on `meta`: without weights.

The formulas are torch's own (`torch.utils.flop_counter`): convolutions, matrix products and attention count, and
element-wise operations (norms, activations, resizing, pooling) do not.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from nasmvt.space import Arch, SearchSpace
from nasmvt.tasks.build import build_skeleton
from nasmvt.tasks.task import Task


def count_macs(space: SearchSpace, task: Task, arch: Arch) -> dict[str, int]:
    """Count the multiply-accumulates (half of the FLOPs) of one image of the task's size, in evaluation mode.

    A detector's work depends on the image; it is counted with the most regions that it keeps
    (see `MaskRCNNHead.workload`).

    Returns:
        For each module of the task network that does such work itself, by name ("backbone.blocks.0.fc1"), its own
        operations without those of its children; the sum is that of the whole network.
    """
    with torch.no_grad():
        network = build_skeleton(space, task, arch, "meta").eval()
        images = torch.empty(1, 3, *task.size(space, arch), device="meta")
        with _MacCounter(network) as counter:
            network.workload(images)
    return dict(counter.macs)


class _MacCounter(TorchDispatchMode):
    """Sums up the multiply-accumulates of every operation under the name of the innermost module that runs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.macs: Counter[str] = Counter()
        self._running = [""]
        for name, module in network.named_modules():
            module.register_forward_pre_hook(partial(self._enter, name))
            module.register_forward_hook(self._leave)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = _SHORTCUTS.get(func.name(), func)(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.macs[self._running[-1]] += formula(*args, **kwargs, out_val=result) // 2
        return result

    def _enter(self, name: str, *_: Any) -> None:
        self._running.append(name)

    def _leave(self, *_: Any) -> None:
        self._running.pop()


def _alike(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x.new_empty_strided(x.shape, x.stride())


def _broadcast(a: Tensor, b: Any, *_: Any, **__: Any) -> Tensor:
    shape = torch.broadcast_shapes(a.shape, b.shape) if isinstance(b, Tensor) else a.shape
    return _alike(a) if shape == a.shape else a.new_empty(shape)


def _normed(x: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor, Tensor]:
    statistics = x.new_empty(0)
    return x.new_empty(x.shape), statistics, statistics


def _resized(x: Tensor, size: list[int], *_: Any, **__: Any) -> Tensor:
    return x.new_empty(*x.shape[:2], *size)


def _product(bias: Tensor, a: Tensor, b: Tensor, *_: Any, **__: Any) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


_SHORTCUTS: dict[str, Callable[..., Any]] = {
    "aten::add.Tensor": _broadcast,
    "aten::mul.Tensor": _broadcast,
    "aten::mul.Scalar": _alike,
    "aten::gelu": _alike,
    "aten::relu": _alike,
    "aten::sigmoid": _alike,
    "aten::_softmax": _alike,
    "aten::_safe_softmax": _alike,
    "aten::native_layer_norm": _normed,
    "aten::native_batch_norm": _normed,
    "aten::upsample_bilinear2d": _resized,
    "aten::upsample_bicubic2d": _resized,
    "aten::addmm": _product,
}
"""Operations whose shapes torch works out slowly on `meta`, in Python: with these, counting is three times as fast."""
