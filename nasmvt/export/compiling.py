"""From programs of torch.export to packages of machine code, by AOTInductor."""

from pathlib import Path

import torch
from torch.export import ExportedProgram

from nasmvt.export.tracing import quiet


def compile_program(program: ExportedProgram, path: Path) -> None:
    """Compile a program for the processor of this machine, and write it as one file, its tensors inside."""
    with quiet(), torch.no_grad():
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))
