"""From an exported folder to files for other runtimes, each compared with PyTorch before it is kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from nasmvt.errors import UserError, listed, nearest
from nasmvt.export.gate import check
from nasmvt.export.loading import LoadedModel
from nasmvt.export.onnx_graph import need, to_onnx, write_graphs
from nasmvt.export.runtimes import ONNX, OnnxProgram, RuntimeNetwork
from nasmvt.export.tracing import trace
from nasmvt.files import new_folder
from nasmvt.pipeline.datasets import TaskData

IMAGES = 8
"""Images of the search split that a file is compared on."""


def chosen_tasks(loaded: LoadedModel, names: Sequence[str] | None) -> list[str]:
    """Return the tasks to export: those named, or all.

    Raises:
        UserError: if the model has no such task.
    """
    for name in names or ():
        if name not in loaded.tasks:
            raise UserError(
                f"the model has no task {name!r}{nearest(name, loaded.tasks)} (tasks: {listed(loaded.tasks)})"
            )
    return list(names or loaded.tasks)


def export_onnx(
    folder: Path,
    loaded: LoadedModel,
    data: Mapping[str, TaskData],
    tasks: Sequence[str],
    *,
    any_size: bool = False,
    images: int = IMAGES,
) -> dict[str, float]:
    """Write `onnx/<task>.onnx` and their tensors into an exported folder; return how much each differs from PyTorch.

    Args:
        folder: the exported folder.
        loaded: its model.
        data: of its tasks; each file is compared with PyTorch on images of the search split.
        tasks: names of the tasks to export.
        any_size: whether the files take images of other sizes than the canvas.
        images: how many images are compared.

    Raises:
        UserError: if a package is missing, a network can't be traced or translated, a file does not compute what
            PyTorch does, or there is such a folder.
    """
    need("onnx", "onnxscript", "onnxruntime")
    networks = {name: loaded.model.task(name).eval() for name in tasks}
    batches = {name: data[name].search_images(images) for name in tasks}
    with new_folder(folder / ONNX) as temporary:
        canvases = {name: data[name].config.data.image_size for name in tasks}
        models = {name: to_onnx(trace(networks[name], canvases[name], any_size=any_size)) for name in tasks}
        write_graphs(models, temporary)
        return {
            name: check(
                RuntimeNetwork(networks[name], OnnxProgram(temporary / f"{name}.onnx", torch.get_num_threads())),
                batches[name],
                f"{ONNX}/{name}.onnx",
            )
            for name in tasks
        }
