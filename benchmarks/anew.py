"""The plain way to lend, which the fast one is measured and tested against: build the network, index the store."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nasmvt.space import Arch
from nasmvt.space.sharing import layer_of
from nasmvt.supernet import Supernet
from nasmvt.tasks.build import buffer_slots, build_network, parameter_slots
from nasmvt.tasks.network import TaskNetwork


def subnet_anew(supernet: Supernet, arch: Arch, task: str, *, skeleton: bool = False) -> TaskNetwork:
    """Return the subnet that `supernet.subnet` returns, from a network that its constructor built.

    Args:
        supernet: the store.
        arch: the subnet.
        task: the task.
        skeleton: build on `meta`, as 0.1.0 did; else with weights, which are then replaced.
    """
    with _OnMeta() if skeleton else nullcontext():
        network = build_network(supernet.space, supernet.tasks[task], arch)
    parameters = dict(supernet.networks[task].named_parameters())
    buffers = dict(supernet.networks[task].named_buffers())
    sharing = supernet.sharing()
    lent: dict[str, Tensor] = {}
    for slot in parameter_slots(network):
        if slot.name not in lent:
            at, layer = tuple(slice(size) for size in slot.shape), layer_of(slot.name)
            lent[slot.name] = parameters[slot.name][at]
            key = slot.name.replace(".", "/")
            if key in supernet.shared:
                tasks, score = supernet.layers[layer], supernet.scores[layer.replace(".", "/")]
                score = score if score.numel() == 1 else score[tasks.index(task)]
                common = supernet.shared[key][at]
                chosen = common if task in sharing.tasks(layer) else lent[slot.name]
                lent[slot.name] = _Choose.apply(chosen, score, common.detach(), lent[slot.name].detach())
        slot.owner._parameters[slot.leaf] = lent[slot.name]
    for slot in buffer_slots(network):
        slot.owner._buffers[slot.leaf] = buffers[slot.name][tuple(slice(size) for size in slot.shape)]
    return network


class _OnMeta(TorchFunctionMode):
    """Building on `meta` of 0.1.0: `torch.nn.init` is skipped, what else writes values is not."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _FACTORIES and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        elif getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


_FACTORIES = {getattr(torch, name) for name in ("empty", "zeros", "ones", "full", "rand", "randn", "randint")}
_FACTORIES |= {getattr(torch, name) for name in ("randperm", "arange", "linspace", "eye", "tensor")}


class _Choose(torch.autograd.Function):
    """The straight-through choice of 0.1.0."""

    @staticmethod
    def forward(ctx: Any, chosen: Tensor, score: Tensor, shared: Tensor, specific: Tensor) -> Tensor:
        ctx.save_for_backward(shared, specific)
        ctx.score_shape = score.shape
        return chosen.view_as(chosen)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        shared, specific = ctx.saved_tensors
        score = torch.dot(grad.reshape(-1), (shared - specific).reshape(-1)).view(ctx.score_shape)
        return grad, score, None, None
