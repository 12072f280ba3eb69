"""Networks of fixed archs, compiled by `torch.compile`."""

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
        if find_spec("triton") is None:
            raise UserError(f"{setting} needs the package triton on {device}: install it, or leave {setting} out")
    elif not _cpp_compiler_works():
        raise UserError(
            f"{setting} needs a C++ compiler on {device}, but none works here: install one (such as the package g++), "
            f"name it by the environment variable CXX, or leave {setting} out"
        )


def _cpp_compiler_works() -> bool:
    from torch._inductor.cpp_builder import get_cpp_compiler  # imported where it is used: it takes a second
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True
