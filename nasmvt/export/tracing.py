"""From a task network to a program of torch.export, which knows nothing of nasmvt's classes.

Shapes: B images, H, W of the canvas.
"""

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from timm.layers import padding
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.overrides import TorchFunctionMode

from nasmvt.errors import UserError
from nasmvt.families.layers import whole
from nasmvt.tasks.network import TaskNetwork


class StaticNetwork(nn.Module):
    """A task network as a runtime computes it: tensors in, named tensors out (see `TaskNetwork.static`)."""

    def __init__(self, network: TaskNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> dict[str, Tensor]:
        """Map normalised images (B, 3, H, W) float32 and maybe their sizes (B, 2) int64 to named tensors."""
        if sizes is None:
            sizes = torch.tensor([[images.shape[2], images.shape[3]]]).expand(images.shape[0], -1)
        return self.network.static(images, sizes)


def trace(
    network: TaskNetwork,
    canvas: tuple[int, int],
    *,
    any_size: bool = False,
    replaced: Mapping[Callable[..., Any], Callable[..., Any]] | None = None,
) -> ExportedProgram:
    """Return the program of a task network, for any number of images.

    Args:
        network: the network.
        canvas: height and width of its images.
        any_size: whether the program takes images of other sizes too. It is then slower, since tables of positions are
            resized in it.
        replaced: what stands for some operators.

    Raises:
        UserError: if it can't be traced; names the module.
    """
    example = {"images": torch.zeros(2, 3, *(_ANY if any_size else canvas))}
    shapes: dict[str, dict[int, object]] = {"images": {0: Dim("batch")}}
    if any_size:
        shapes["images"] |= {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    if "sizes" in network.static_inputs:
        example["sizes"] = torch.tensor([list(example["images"].shape[2:])] * 2)
        shapes["sizes"] = {0: Dim("batch")}
    # Attention lays out its result by what needs gradients, and nobody trains a program.
    frozen = copy.deepcopy(network).eval().requires_grad_(False)
    with torch.no_grad(), _naming_failures(frozen), quiet(), _Replacing(replaced or {}), _short_sizes():
        return torch.export.export(StaticNetwork(frozen), (), kwargs=example, dynamic_shapes=shapes, strict=False)


def save_program(program: ExportedProgram, path: Path) -> None:
    """Write a program, without what only a debugger reads: where each step came from."""
    for node in program.graph.nodes:
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack"):
            node.meta.pop(key, None)
    with quiet():
        torch.export.save(program, path)


_ANY = (267, 403)
"""Sides of the example where they are left open. What is asked of them while it runs is taken for constant: no level
has a single cell, sides differ, and no stride divides them."""


@contextmanager
def _short_sizes() -> Iterator[None]:
    """Let timm's padding "same" compute sizes by a term of one occurrence of the side (see `whole`), not of three."""
    before = padding.get_same_padding
    padding.get_same_padding = _same_padding
    try:
        yield
    finally:
        padding.get_same_padding = before


def _same_padding(side: int, kernel_size: int, stride: int, dilation: int) -> int:
    """Return the cells that TensorFlow pads in all, so that a convolution returns side / stride, rounded up."""
    extent = (kernel_size - 1) * dilation + 1
    found = whole(side, stride) - side + extent - stride
    return found if extent >= stride else max(found, 0)


class _Replacing(TorchFunctionMode):
    """Calls others instead of some operators."""

    def __init__(self, table: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
        super().__init__()
        self._table = table

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self._table.get(func, func)(*args, **(kwargs or {}))


@contextmanager
def _naming_failures(network: nn.Module) -> Iterator[None]:
    """Turn what goes wrong while a network runs into a sentence that names the innermost module."""
    names = {module: name for name, module in network.named_modules()}
    running: list[nn.Module] = []

    def begins(module: nn.Module, _: object) -> None:
        running.append(module)

    def ends(*_: object) -> None:
        running.pop()

    handles = [module.register_forward_pre_hook(begins) for module in names]
    handles += [module.register_forward_hook(ends) for module in names]
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        place = f"in {names[running[-1]] or 'the network'} ({type(running[-1]).__name__})" if running else "at its end"
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"a network must be traceable to be exported, but tracing failed {place}: {reason}; export without it, or "
            "change that module"
        ) from error
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the tracer tells its developers off the screen."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
