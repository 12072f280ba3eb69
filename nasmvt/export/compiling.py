"""From programs of torch.export to packages of machine code, by AOTInductor."""

from pathlib import Path

import torch
from torch.export import ExportedProgram

from nasmvt.errors import UserError
from nasmvt.export.tracing import quiet


def need_compiler() -> None:
    """Check that there is a C++ compiler.

    Raises:
        UserError: if there is none.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler  # imported where it is used: it takes a second
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise UserError(
            "--aoti compiles networks by a C++ compiler, but none works here: install one (such as the package g++), "
            "name it by the environment variable CXX, or use --pt2"
        ) from None


def compile_program(program: ExportedProgram, path: Path) -> None:
    """Compile a program for the processor of this machine, and write it as one file, its tensors inside."""
    with quiet(), torch.no_grad():
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))
