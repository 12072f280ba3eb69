"""From ONNX files to quantised ones, and what that costs, measured."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from nasmvt.data.eval_set import EvalSet
from nasmvt.errors import UserError, listed
from nasmvt.export.folder import note_int8
from nasmvt.export.onnx_int8 import chosen_parts, parts, quantise, within
from nasmvt.export.runtimes import INT8, ONNX, OnnxProgram, RuntimeNetwork
from nasmvt.files import new_folder
from nasmvt.pipeline.deploy import Deployment
from nasmvt.tasks.evaluate import evaluate

CALIBRATION_IMAGES = 64
"""Training images that ranges of activations are taken from."""
GRANTED = 1.0
"""Points of a task's first metric that may be lost before parts are kept in float."""
JUDGING_IMAGES = 512
"""Images of the training split that this is measured on, or the search split where that has more: on a hundred images
a point of accuracy is one image."""


def export_int8(work: Deployment, keep: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Write `int8/<task>.onnx`; return what is lost by it, and note it in config.json and the card.

    Which parts of a network stay in float is found on the search split and training images; figures are of val.

    Args:
        work: what is exported; its ONNX files must be there.
        keep: parts that stay in float instead; none are then looked for.

    Raises:
        UserError: if a task's ONNX file is missing, or a part is none of a network's.
    """
    report: dict[str, dict[str, Any]] = {}
    known: set[str] = set()
    for name in work.tasks:
        path = work.folder / ONNX / f"{name}.onnx"
        OnnxProgram(path)  # refuses a missing one before anything is done
        known |= parts(path)
    if unknown := sorted(one for one in keep or () if not any(within(part, [one]) for part in known)):
        raise UserError(f"--keep-float names parts of the networks ({listed(sorted(known))}), not {listed(unknown)}")
    with new_folder(work.folder / INT8) as folder:
        for name in work.tasks:
            report[name] = _quantise_task(work, name, folder, keep)
    note_int8(work.folder, report)
    return report


def _quantise_task(work: Deployment, name: str, folder: Path, keep: Sequence[str] | None) -> dict[str, Any]:
    path, out = work.folder / ONNX / f"{name}.onnx", folder / f"{name}.onnx"
    network, task, data = work.networks[name], work.loaded.model.tasks[name], work.data[name]
    every = parts(path)
    inputs = [
        network.static_arguments(batch.images, batch.infos) for batch in data.recalibration_images(CALIBRATION_IMAGES)
    ]
    judging = data.judging_images(JUDGING_IMAGES)

    def figures(file: Path, images: EvalSet) -> dict[str, float]:
        return evaluate(RuntimeNetwork(network, OnnxProgram(file)), images, task, "cpu")

    usual = figures(path, judging)[task.primary]

    def loss(kept: Collection[str]) -> float:
        quantise(path, out, inputs, kept)
        return usual - figures(out, judging)[task.primary]

    if keep is None:
        kept, _ = chosen_parts(every, loss, GRANTED)
    else:
        kept = {part for part in every if within(part, keep)}
    quantise(path, out, inputs, kept)
    val = data.val_images()
    return {
        "bytes": out.stat().st_size,
        "float": figures(path, val),
        "int8": figures(out, val),
        "kept_in_float": sorted(kept),
    }
