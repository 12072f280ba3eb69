"""Networks of fixed archs, compiled by `torch.compile`."""

import os
import shutil
from importlib.util import find_spec

import torch

from nasmvt.errors import UserError
from nasmvt.tasks.network import TaskNetwork


def compile_network(network: TaskNetwork, backend: str = "inductor") -> None:
    """Compile backbone and neck, from their first call on; names and state dict stay as they are.

    Heads are left alone: those of detectors pass lists of boxes around, whose lengths differ from image to image.

    Args:
        network: of a fixed arch.
        backend: of `torch.compile`.
    """
    for part in (network.backbone, network.neck):
        part.compile(backend=backend)


def check_compiler(device: torch.device | str, setting: str) -> None:
    """Refuse to compile where what it takes is missing: a C++ compiler for the CPU, Triton for CUDA.

    Args:
        device: where the network computes.
        setting: what asked for it, for the sentence.

    Raises:
        UserError: naming it.
    """
    if torch.device(device).type == "cuda":
        missing = None if find_spec("triton") else "the package triton"
    else:
        missing = None if any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))) else "a C++ compiler (g++)"
    if missing:
        raise UserError(
            f"{setting} needs {missing} on {device}, which is not found: install it, or leave {setting} out"
        )
