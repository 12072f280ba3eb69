"""One ONNX file of several tasks, whose graphs lie side by side and share their tensors."""

import string
from collections.abc import Iterator, Mapping
from itertools import count, product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

MERGED = "model.onnx"
"""Its name in an exported folder."""


def merge(models: Mapping[str, "ir.Model"]) -> "ir.Model":
    """Return one model of several; inputs and outputs are called `<task>.<name>`, equal tensors are stored once.

    Names inside are as short as can be: in small networks they would outweigh the sharing.

    Args:
        models: by task; they are taken apart.
    """
    import onnx_ir as ir
    from onnx_ir.convenience import replace_all_uses_with

    names = _short_names()
    kept: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
    inputs: list[ir.Value] = []
    outputs: list[ir.Value] = []
    nodes: list[ir.Node] = []
    for task, model in models.items():
        for value in list(model.graph.initializers.values()):
            array = np.array(value.const_value.numpy())  # type: ignore[union-attr]
            first = kept.setdefault((array.dtype.str, array.shape, array.tobytes()), value)
            if first is value:
                value.name = next(names)
                value.const_value = ir.Tensor(array, name=value.name)
                value.shape = value.type = None  # said by the tensor
                value.metadata_props.clear()
            else:
                replace_all_uses_with(value, first)
        model.graph.initializers.clear()
        for value in (*model.graph.inputs, *model.graph.outputs):
            value.name = f"{task}.{value.name}"
        own_outputs = list(model.graph.outputs)
        inputs.extend(list(model.graph.inputs))
        outputs.extend(own_outputs)
        model.graph.inputs.clear()
        model.graph.outputs.clear()
        own = list(model.graph)
        model.graph.remove(own)
        for node in own:
            node.name = ""
            for value in node.outputs:
                if value not in own_outputs and value.name:
                    value.name = next(names)
                    value.shape = value.type = None
        nodes += own
        opsets = model.graph.opset_imports
    graph = ir.Graph(
        inputs, outputs, nodes=nodes, initializers=list(kept.values()), opset_imports=opsets, name="nasmvt"
    )
    return ir.Model(graph, ir_version=model.ir_version)


def _short_names() -> Iterator[str]:
    for length in count(1):
        yield from map("".join, product(string.ascii_letters, repeat=length))
