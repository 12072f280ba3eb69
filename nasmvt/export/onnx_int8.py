"""Static quantisation of an ONNX file: weights int8 by output channel, activations uint8, by ONNX Runtime.

Why ONNX Runtime and not torchao: its files run where the others of the folder do, and it takes the detectors' graphs as
they are.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from nasmvt.export.onnx_graph import need, read_graph, write_graph
from nasmvt.export.onnx_merge import compact

_OPERATORS = ["Conv", "MatMul", "Gemm"]


def parts(path: Path) -> set[str]:
    """Return the parts of the network whose products can be quantised.

    A part is a child of the backbone or one of its blocks, the neck, or a child of the head: `backbone.stem`,
    `backbone.blocks.2`, `neck`, `head.rpn`.
    """
    return {part for part in _products(path).values() if part is not None}


def _products(path: Path) -> dict[str, str | None]:
    """Return the part that each product of a file belongs to, by the name of its node.

    Those of attention, without weights, have none: in int8 they are slower than in float, and no smaller.
    """
    found = {}
    for node in read_graph(path).graph:
        if node.op_type in _OPERATORS:
            weights = [str(value.name) for value in node.inputs if value is not None and value.is_initializer()]
            found[str(node.name)] = _part(weights[0]) if weights else None
    return found


def _part(weight: str) -> str:
    """Return the part that a weight such as `network.backbone.stem.0.weight` belongs to."""
    module, *inner = weight.removeprefix("network.").split(".")
    if module == "neck" or not inner:
        return module
    block = module == "backbone" and len(inner) > 1 and inner[0] != "stem" and inner[1].isdigit()
    return ".".join([module, *inner[: 2 if block else 1]])


def within(part: str, kept: Collection[str]) -> bool:
    """Return whether a part is one of others or inside of one: `backbone.blocks.2` is inside of `backbone.blocks`."""
    return any(part == one or part.startswith(f"{one}.") for one in kept)


def quantise(path: Path, out: Path, inputs: Iterable[Mapping[str, Tensor]], kept: Collection[str]) -> None:
    """Write a quantised copy of a file, its tensors inside.

    Args:
        path: the file.
        out: the copy.
        inputs: batches that ranges of activations are taken from.
        kept: parts that stay in float, with what is inside of them.

    Raises:
        UserError: if a package is missing.
    """
    need("onnx", "onnxruntime")
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        """Hands out the batches."""

        def __init__(self) -> None:
            self._batches: Iterator[dict[str, Any]] = (
                {name: tensor.numpy() for name, tensor in batch.items()} for batch in inputs
            )

        def get_next(self) -> dict[str, Any] | None:
            return next(self._batches, None)

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends a preparation that the graph has had
    try:
        quantize_static(
            str(path),
            str(out),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            op_types_to_quantize=_OPERATORS,
            nodes_to_exclude=[node for node, part in _products(path).items() if part is None or within(part, kept)],
        )
    finally:
        root.setLevel(level)
    model = read_graph(out)
    compact(model)
    write_graph(model, out)


def chosen_parts(
    every: Collection[str], loss: Callable[[Collection[str]], float], most: float
) -> tuple[set[str], float]:
    """Return the parts that have to stay in float so that quantising the others costs little enough, and what it costs.

    Each part is tried alone. Those that gain most are kept together, one more at a time, until the loss is small
    enough; if it never is, those with which it is smallest.

    Args:
        every: the parts.
        loss: what is lost if some parts are kept.
        most: the loss that is granted.
    """
    nothing = loss(set())
    if nothing <= most:
        return set(), nothing
    alone = {part: loss({part}) for part in sorted(every)}
    found = [(nothing, 0)]
    order = sorted(alone, key=alone.__getitem__)
    for count, part in enumerate(order, 1):
        found.append((alone[part] if count == 1 else loss(set(order[:count])), count))
        if found[-1][0] <= most:
            break
    lost, count = min(found)
    return set(order[:count]), lost
