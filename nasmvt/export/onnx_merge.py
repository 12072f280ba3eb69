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

    Args:
        models: by task; they are taken apart.
    """
    import onnx_ir as ir

    tensors = _Tensors()
    inputs: list[ir.Value] = []
    outputs: list[ir.Value] = []
    nodes: list[ir.Node] = []
    for task, model in models.items():
        for value in (*model.graph.inputs, *model.graph.outputs):
            value.name = f"{task}.{value.name}"
        tensors.take(model)
        inputs.extend(list(model.graph.inputs))
        outputs.extend(list(model.graph.outputs))
        model.graph.inputs.clear()
        model.graph.outputs.clear()
        own = list(model.graph)
        model.graph.remove(own)
        nodes += own
        opsets = model.graph.opset_imports
    graph = ir.Graph(inputs, outputs, nodes=nodes, initializers=tensors.kept, opset_imports=opsets, name="nasmvt")
    return ir.Model(graph, ir_version=model.ir_version)


def compact(model: "ir.Model") -> None:
    """Name what is inside of a model as short as can be, store equal tensors once, and leave shapes and notes out.

    In small networks all this would outweigh sharing and quantisation.
    """
    tensors = _Tensors()
    tensors.take(model)
    for value in tensors.kept:
        model.graph.register_initializer(value)


class _Tensors:
    """The tensors of one or several models, equal ones once, and the short names of all inner values."""

    def __init__(self) -> None:
        self._names = _short_names()
        self._kept: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    @property
    def kept(self) -> "list[ir.Value]":
        """The tensors so far."""
        return list(self._kept.values())

    def take(self, model: "ir.Model") -> None:
        """Take the tensors out of a model, and rename what is left inside."""
        import onnx_ir as ir
        from onnx_ir.convenience import replace_all_uses_with

        for value in list(model.graph.initializers.values()):
            array = np.array(value.const_value.numpy())  # type: ignore[union-attr]
            first = self._kept.setdefault((array.dtype.str, array.shape, array.tobytes()), value)
            if first is value:
                value.name = next(self._names)
                value.const_value = ir.Tensor(array, name=value.name)
                value.shape = value.type = None  # said by the tensor
                value.metadata_props.clear()
            else:
                replace_all_uses_with(value, first)
        model.graph.initializers.clear()
        outputs = list(model.graph.outputs)
        for node in model.graph:
            node.name = ""
            for value in node.outputs:
                if value not in outputs and value.name:
                    value.name = next(self._names)
                    value.shape = value.type = None


def _short_names() -> Iterator[str]:
    for length in count(1):
        yield from map("".join, product(string.ascii_letters, repeat=length))
