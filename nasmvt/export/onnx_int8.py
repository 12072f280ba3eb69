"""Static quantisation of an ONNX file: weights int8 by output channel, activations uint8, by ONNX Runtime.

Why ONNX Runtime and not torchao: its files run where the others of the folder do, and it takes the detectors' graphs as
they are.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from nasmvt.export.onnx_graph import need, read_graph, write_graph
from nasmvt.export.onnx_merge import compact

if TYPE_CHECKING:
    import onnx_ir as ir

_OPERATORS = ["Conv", "MatMul", "Gemm"]
_SMALLEST = 256
"""Elements of the smallest table that is quantised."""
_BOUNDS = ["Relu", "Clip"]
"""What only bounds a value: after a quantised convolution the range of its integers does it, and the node goes."""
_FLOAT_OUTPUTS = ["MatMul", "Gemm"]
"""What a bias, a norm or a softmax follows in float: to round its sums before would cost time and accuracy."""


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
            op_types_to_quantize=[*_OPERATORS, *_BOUNDS],
            nodes_to_exclude=[node for node, part in _products(path).items() if part is None or within(part, kept)],
            extra_options={"OpTypesToExcludeOutputQuantization": _FLOAT_OUTPUTS},
        )
    finally:
        root.setLevel(level)
    model = read_graph(out)
    _store_in_int8(model, kept)
    _compute_scales(model)
    compact(model)
    write_graph(model, out)


def _store_in_int8(model: "ir.Model", kept: Collection[str]) -> None:
    """Let tables of positions and weights of transposed convolutions be int8 too, by their second axis.

    They compute in float: they are cast and scaled once, when the file is loaded, which DequantizeLinear is not. In
    small networks they are 2 to 8 % of the file.
    """
    import onnx_ir as ir
    from onnx_ir.convenience import replace_all_uses_with

    for name, value in list(model.graph.initializers.items()):
        operators = {node.op_type for node, _ in value.uses()}
        table = name.startswith("network.backbone.") and operators.isdisjoint(_OPERATORS)
        if not (table or operators == {"ConvTranspose"}):
            continue
        array = _array(value)
        if array.dtype != np.float32 or array.ndim < 2 or array.size < _SMALLEST or within(_part(name), kept):
            continue
        most = np.abs(array).max(axis=tuple(axis for axis in range(array.ndim) if axis != 1), keepdims=True)
        steps = np.maximum(most, np.finfo(np.float32).tiny) / np.float32(127)
        numbers, scales = (
            ir.Value(name=f"{name}.{what}", const_value=ir.tensor(content))
            for what, content in (("int8", np.round(array / steps).astype(np.int8)), ("steps", steps))
        )
        for made in (numbers, scales):
            model.graph.register_initializer(made)
        cast = ir.node("Cast", [numbers], {"to": ir.DataType.FLOAT})
        product = ir.node("Mul", [cast.outputs[0], scales])
        for node, what in ((cast, "float"), (product, "table")):
            node.outputs[0].name = f"{name}.{what}"
        model.graph.insert_before(model.graph[0], [cast, product])
        replace_all_uses_with(value, product.outputs[0])
        del model.graph.initializers[name]


def _compute_scales(model: "ir.Model") -> None:
    """Let the scales of biases be computed when the file is loaded: they are products of scales that stand in it.

    In small networks they are 1 % of the file.
    """
    import onnx_ir as ir

    for node in list(model.graph):
        bias = _maker(node.inputs[2]) if node.op_type in ("Conv", "Gemm") and len(node.inputs) > 2 else None
        if bias is None:
            continue
        factors = [_maker(value).inputs[1] for value in node.inputs[:2]]
        if np.array_equal(_array(bias.inputs[1]), np.multiply(*map(_array, factors))):
            product = ir.node("Mul", factors)
            model.graph.insert_before(bias, product)
            bias.replace_input_with(1, product.outputs[0])
    used = {value for node in model.graph for value in node.inputs}
    for name in [name for name, value in model.graph.initializers.items() if value not in used]:
        del model.graph.initializers[name]


def _maker(value: Any) -> Any:
    """Return the node that computes a value; None: it is stored, or missing."""
    return None if value is None else value.producer()


def _array(value: Any) -> np.ndarray:
    """Return a stored value."""
    return np.asarray(value.const_value.numpy())


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
