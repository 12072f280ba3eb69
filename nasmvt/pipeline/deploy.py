"""From an exported folder to files for other runtimes, each compared with PyTorch before it is kept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.export import ExportedProgram

from nasmvt.data import EvalTransform
from nasmvt.data.eval_set import EvalSet
from nasmvt.errors import UserError, listed, nearest
from nasmvt.export import run_onnx
from nasmvt.export.compiling import compile_program
from nasmvt.export.gate import check, check_images, check_merged
from nasmvt.export.loading import LoadedModel, load
from nasmvt.export.onnx_graph import need, read_graph, to_onnx, write_graph, write_graphs
from nasmvt.export.onnx_images import SUFFIX, check_kind, placement, with_images
from nasmvt.export.onnx_merge import MERGED, merge
from nasmvt.export.runtimes import AOTI, ONNX, PT2, AotiProgram, OnnxProgram, Program, Pt2Program, RuntimeNetwork
from nasmvt.export.schema import ExportedTask
from nasmvt.export.tracing import save_program, trace
from nasmvt.files import atomic, new_folder, write_text
from nasmvt.heads.static import survivors_by_torchvision
from nasmvt.pipeline.datasets import TaskData
from nasmvt.pipeline.evaluate import data_configs, data_of
from nasmvt.tasks.compiled import check_compiler
from nasmvt.tasks.network import TaskNetwork

IMAGES = 8
"""Images of the search split that a file is compared on."""
IMAGES_TOO = "with_preprocessing"
"""Name of the files that take images as they are."""

_IN_TORCHVISION: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.nasmvt.survivors: survivors_by_torchvision,
    torch.ops.nasmvt.survivors.default: survivors_by_torchvision,
}


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What is exported, and to where."""

    folder: Path
    """The exported folder."""
    loaded: LoadedModel
    """Its model."""
    data: Mapping[str, TaskData]
    """Of its tasks; files are compared with PyTorch on images of the search split."""
    tasks: Sequence[str]
    """Which tasks are exported."""
    any_size: bool = False
    """Whether files take images of other sizes than the canvas."""
    images: int = IMAGES
    """How many images are compared."""

    def __post_init__(self) -> None:
        known = self.loaded.tasks
        for name in self.tasks:
            if name not in known:
                raise UserError(f"the model has no task {name!r}{nearest(name, known)} (tasks: {listed(known)})")

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        tasks: Sequence[str] | None = None,
        any_size: bool = False,
        changes: Sequence[str] = (),
    ) -> "Deployment":
        """Load an exported folder.

        Args:
            folder: the folder.
            tasks: which are exported; None: all.
            any_size: whether files take images of other sizes than the canvas.
            changes: of the settings of the data, such as "tasks.det.data.root=/data/coco".

        Raises:
            UserError: if it is no such folder, it lacks a task, or data are missing.
        """
        loaded = load(folder)
        data = data_of(loaded, data_configs(loaded, changes))
        return cls(folder=folder, loaded=loaded, data=data, tasks=tasks or loaded.tasks, any_size=any_size)

    def described(self, name: str) -> ExportedTask:
        """Return what config.json says of a task."""
        return ExportedTask.of(self.loaded.model.tasks[name])

    @cached_property
    def networks(self) -> dict[str, TaskNetwork]:
        """The networks to export."""
        return {name: self.loaded.model.task(name).eval() for name in self.tasks}

    @cached_property
    def batches(self) -> dict[str, EvalSet]:
        """The images of each task that are compared."""
        return {name: self.data[name].search_images(self.images) for name in self.tasks}

    def program(self, name: str, *, plain: bool = False) -> ExportedProgram:
        """Return the program of a task; a plain one has no operators but PyTorch's and torchvision's.

        Raises:
            UserError: if its network can't be traced.
        """
        canvas = self.data[name].config.data.nominal_size
        replaced = _IN_TORCHVISION if plain else None
        return trace(self.networks[name], canvas, any_size=self.any_size, replaced=replaced)

    def check(self, name: str, program: Program, file: str) -> float:
        """Return how much a file differs from PyTorch.

        Raises:
            UserError: if that is too much.
        """
        return check(RuntimeNetwork(self.networks[name], program), self.batches[name], file)


def export_onnx(work: Deployment) -> dict[str, float]:
    """Write ONNX files; return by name how much each differs from PyTorch.

    These are `onnx/<task>.onnx` with their tensors beside them, `model.onnx` of all tasks in one if there are several,
    and `run_onnx.py`, which needs no nasmvt.

    Raises:
        UserError: if a package is missing, a network can't be traced or translated, a file does not compute what
            PyTorch does, or there are such files already.
    """
    need("onnx", "onnxscript", "onnxruntime")
    differences = {}
    with new_folder(work.folder / ONNX) as folder:
        write_graphs({name: to_onnx(work.program(name)) for name in work.tasks}, folder)
        for name in work.tasks:
            file = f"{name}.onnx"
            differences[f"{ONNX}/{file}"] = work.check(name, OnnxProgram(folder / file), f"{ONNX}/{file}")
        if len(work.tasks) > 1:
            merged = merge({name: read_graph(folder / f"{name}.onnx") for name in work.tasks})
            with atomic(work.folder / MERGED) as path:
                write_graph(merged, path)
                differences[MERGED] = check_merged(OnnxProgram(path), work.networks, work.batches, MERGED)
        program = Path(run_onnx.__file__)
        write_text(work.folder / program.name, program.read_text(encoding="utf-8"))
    return differences


def export_pt2(work: Deployment) -> dict[str, float]:
    """Write `pt2/<task>.pt2`, programs of torch.export; return by name how much each differs from PyTorch.

    Raises:
        UserError: if a network can't be traced, a program does not compute what the network does, or there are such
            files already.
    """
    return _export_programs(work, PT2, save_program, Pt2Program)


def export_aoti(work: Deployment) -> dict[str, float]:
    """Write `aoti/<task>.pt2`, machine code for this kind of processor; return by name how much each differs from
    PyTorch.

    Raises:
        UserError: if there is no C++ compiler, a network can't be traced, its code does not compute what the network
            does, or there are such files already.
    """
    check_compiler("cpu", "--aoti")
    return _export_programs(work, AOTI, compile_program, AotiProgram)


def _export_programs(
    work: Deployment,
    kind: str,
    write: Callable[[ExportedProgram, Path], None],
    read: Callable[[Path], Program],
) -> dict[str, float]:
    """Write `<kind>/<task>.pt2`; return by name how much each differs from PyTorch."""
    differences = {}
    with new_folder(work.folder / kind) as folder:
        for name in work.tasks:
            file = f"{name}.pt2"
            write(work.program(name, plain=True), folder / file)
            differences[f"{kind}/{file}"] = work.check(name, read(folder / file), f"{kind}/{file}")
    return differences


def export_images(work: Deployment) -> dict[str, float]:
    """Write `onnx/<task>.image.onnx` around the files of `export_onnx`: they take images as they are.

    Return by name how much the prediction of each differs from PyTorch's on the same canvas; the canvas itself may
    differ from PyTorch's by a grey level, since resizing rounds.

    Raises:
        UserError: if an ONNX file is missing, a kind or a placement has no such form, or a file does not compute what
            PyTorch does.
    """
    need("onnx", "onnxruntime")
    folder = work.folder / ONNX
    for name in work.tasks:
        OnnxProgram(folder / f"{name}.onnx")  # refuses a missing one before anything is done
        check_kind(name, work.described(name).kind, work.described(name).preprocessing)
    differences = {}
    for name in work.tasks:
        file, task = f"{name}{SUFFIX}", work.described(name)
        with atomic(folder / file) as path, TemporaryDirectory() as aside:
            write_graph(with_images(read_graph(folder / f"{name}.onnx"), task.kind, task.preprocessing), path)
            canvas = Path(aside) / "canvas.onnx"
            write_graph(placement(task.preprocessing), canvas)
            programs = (OnnxProgram(path), OnnxProgram(canvas))
            pictures = work.data[name].search_pictures(work.images)
            place = EvalTransform(work.data[name].config.data)
            differences[f"{ONNX}/{file}"] = check_images(*programs, work.networks[name], place, pictures, file)
    return differences
