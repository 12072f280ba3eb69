"""Files for other runtimes are kept only if they compute what PyTorch computes."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from nasmvt.data.transforms import EvalTransform, to_tensor
from nasmvt.data.types import Batch
from nasmvt.errors import UserError
from nasmvt.export.runtimes import Program, RuntimeNetwork
from nasmvt.tasks.matching import disagreement
from nasmvt.tasks.modes import evaluating
from nasmvt.tasks.network import TaskNetwork

TOLERANCE = 1e-4
"""Largest difference that float32 on another runtime is granted (see `TaskNetwork.disagreement`)."""


def worst_disagreement(served: RuntimeNetwork, batches: Iterable[Batch]) -> float:
    """Return by how much a runtime differs from PyTorch at most, on whole batches and on the first image of each."""
    worst = 0.0
    for batch in batches:
        for count in {1, len(batch.images)}:
            images, infos = batch.images[:count], batch.infos[:count]
            worst = max(worst, served.network.disagreement(served.outputs(images, infos), images, infos))
    return worst


def check(served: RuntimeNetwork, batches: Iterable[Batch], what: str) -> float:
    """Return the same, if it is within the tolerance.

    Raises:
        UserError: if it is not; names `what`.
    """
    return _granted(worst_disagreement(served, batches), what)


def check_merged(
    program: Program, networks: Mapping[str, TaskNetwork], batches: Mapping[str, Iterable[Batch]], what: str
) -> float:
    """Return by how much a program of several tasks differs from PyTorch, on one image of each, if it is little enough.

    Args:
        program: takes and returns `<task>.<name>`.
        networks: of the tasks.
        batches: images of each task.
        what: names the program.

    Raises:
        UserError: if it differs by more than is granted.
    """
    first = {name: next(iter(batches[name])) for name in networks}
    given = {name: (batch.images[:1], batch.infos[:1]) for name, batch in first.items()}
    outputs = program(
        {
            f"{name}.{key}": tensor
            for name, network in networks.items()
            for key, tensor in network.static_arguments(*given[name]).items()
        }
    )
    worst = 0.0
    for name, network in networks.items():
        own = {key.removeprefix(f"{name}."): value for key, value in outputs.items() if key.startswith(f"{name}.")}
        worst = max(worst, network.disagreement(own, *given[name]))
    return _granted(worst, what)


def check_images(
    program: Program,
    placement: Program,
    network: TaskNetwork,
    place: EvalTransform,
    pictures: Iterable[Any],
    what: str,
) -> float:
    """Return by how much a program that takes images as they are differs from PyTorch, if it is little enough.

    The canvas may differ by a grey level. What is predicted from it is compared: probabilities, detections, and of a
    label map a hundredth of the share of its pixels, so that 1 % of them may differ where classes are equal.

    Args:
        program: from `image`, uint8 (h, w, 3), to its prediction.
        placement: to its canvas.
        network: of the task.
        place: PyTorch's placement.
        pictures: images.
        what: names the program.

    Raises:
        UserError: if it differs by more than is granted.
    """
    worst = 0.0
    for picture in pictures:
        given = {"image": to_tensor(picture).permute(1, 2, 0).contiguous()}
        canvas, info = place(picture)
        placed = placement(given)
        levels = float((placed["pixels"][0] - canvas.float()).abs().max())
        if levels > 1 or tuple(placed["sizes"][0].tolist()) != info.valid:
            raise UserError(
                f"{what} must place images as PyTorch does, but differs by {levels:.0f} grey levels (at most 1): it is "
                "not written; export without --with-preprocessing, or update onnxruntime"
            )
        size = (canvas.shape[1], canvas.shape[2])
        with evaluating(network), torch.inference_mode():
            outputs = network.outputs(placed["pixels"].to(torch.uint8), [info])
            expected = network.read(outputs, [info], size)[0]
        worst = max(worst, _difference(expected, program(given)))
    return _granted(worst, what)


def _difference(expected: Any, found: Mapping[str, Tensor]) -> float:
    """Return by how much the outputs of a program differ from a prediction."""
    if "probabilities" in found:
        return float((found["probabilities"] - expected.probabilities).abs().max())
    if "boxes" in found:
        ours = {"boxes": expected.boxes, "labels": expected.labels, "scores": expected.scores}
        return disagreement(ours, found, max(expected.size))
    return float((found["labels"] != expected.labels).float().mean()) / 100


def _granted(worst: float, what: str) -> float:
    if not worst <= TOLERANCE:
        raise UserError(
            f"{what} must compute what PyTorch computes, but differs by {worst:.1e} of the largest value (at most "
            f"{TOLERANCE:.0e}): it is not written; export from another version of torch, or without this runtime"
        )
    return worst
