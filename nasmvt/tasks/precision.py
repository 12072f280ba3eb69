"""In which numbers networks compute: autocast around the networks, weights and everything else in float32.

Autocast runs matrix products and convolutions in 16 bits; heads return float32, so losses and predictions are computed
in it. Weights, statistics of norms, scores, gradients and the optimizer's state stay in float32.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from nasmvt.errors import UserError, listed
from nasmvt.precision import PRECISIONS, Precision

_TYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: Precision, device: torch.device | str) -> AbstractContextManager[Any]:
    """Return a context in which networks on a device compute in a precision; fp32 leaves everything as it is."""
    dtype = _TYPES.get(precision)
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype is not None)


def parse_precision(text: str, device: torch.device | str) -> Precision:
    """Return the precision that a name means, for a device that has it.

    Raises:
        UserError: if there is none of that name, or the device can't compute in it.
    """
    for precision in PRECISIONS:
        if text == precision:
            check_precision(precision, device)
            return precision
    raise UserError(f"the precision must be one of {listed(PRECISIONS)}, not {text!r}")


def check_precision(precision: Precision, device: torch.device | str) -> None:
    """Refuse a precision in which a device can't compute.

    Raises:
        UserError: naming both.
    """
    if precision == "fp32":
        return
    device = torch.device(device)
    try:
        with torch.random.fork_rng(devices=[]), autocast(precision, device), torch.device(device):
            probe = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2, 2))
            probe(torch.zeros(1, 3, 3, 3)).sum().backward()
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"the device {device} can't compute in {precision} ({' '.join(str(error).split())[:120]}): use fp32"
        ) from None


@contextmanager
def tensor_floats(allowed: bool | None) -> Iterator[None]:
    """Let CUDA round the operands of float32 products to TF32 inside the block, or not; None: as torch has it."""
    before = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    try:
        if allowed is not None:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
