"""From programs of torch.export to ONNX files that store every tensor once.

`onnx`, `onnxscript` and `onnxruntime` are needed (the extra `onnx`); they are imported when they are used.
"""

import hashlib
import operator
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from nasmvt.errors import UserError
from nasmvt.export.tracing import quiet

if TYPE_CHECKING:
    import onnx_ir as ir

WEIGHTS = "weights.data"
"""The file beside the graphs that holds their tensors."""

_OPSET = 18
_LARGEST_CONSTANT = 1024
"""Elements up to which a computed constant replaces its computation; larger ones would outgrow the weights."""
_LARGEST_VECTOR = 2**16
"""The same for vectors: a bias never outgrows its weights, and BatchNorm joins only convolutions with constant ones."""
_INSIDE = 256
"""Bytes up to which a tensor stays inside its graph."""


def need(*packages: str) -> None:
    """Check that packages of the extra `onnx` are there.

    Raises:
        UserError: if one is missing.
    """
    for package in packages:
        try:
            import_module(package)
        except ImportError:
            raise UserError(f"ONNX needs the package {package}: pip install 'nasmvt[onnx]'") from None


def to_onnx(program: ExportedProgram) -> "ir.Model":
    """Translate a program; inputs and outputs keep their names, the number of images is called `batch`.

    Raises:
        UserError: if ONNX has no operator for a part of it, or a package is missing.
    """
    need("onnx", "onnxscript")
    from onnxscript import optimizer

    names = pytree.tree_unflatten(range(program.call_spec.out_spec.num_leaves), program.call_spec.out_spec)
    with quiet():
        try:
            translated = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                optimize=False,
                opset_version=_OPSET,
                output_names=list(names),
                custom_translation_table=_translations(),
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise UserError(
                f"ONNX lacks an operator of this network ({' '.join(str(error.__cause__ or error).split())[:200]}): "
                "use --pt2, or a head and family without it"
            ) from error
        assert translated is not None
        _name_by_weights(translated.model)
        optimizer.optimize_ir(translated.model, output_size_limit=_LARGEST_VECTOR, should_fold=_small_enough)
    _strip(translated.model)
    return translated.model


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return what stands for our own operators, and for what the exporter translates wrongly."""
    from onnxscript import FLOAT, INT64
    from onnxscript import opset18 as op

    def survivors(boxes_GN4: FLOAT, scores_GN: FLOAT, overlap: float) -> Any:
        scores_G1N = op.Unsqueeze(scores_GN, op.Constant(value_ints=[1]))
        every = op.Shape(scores_GN, start=1, end=2)
        chosen_n3 = op.NonMaxSuppression(
            boxes_GN4, scores_G1N, every, op.Constant(value_float=overlap), op.Constant(value_float=0.0)
        )
        places_n2 = op.Gather(chosen_n3, op.Constant(value_ints=[0, 2]), axis=1)
        nothing = op.Mul(scores_GN, op.Constant(value_float=0.0))
        ones = op.Expand(op.Constant(value_float=1.0), op.Shape(places_n2, start=0, end=1))
        return op.Cast(op.ScatterND(nothing, places_n2, ones), to=9)  # bool

    def floordiv(a: INT64, b: INT64) -> Any:  # Div alone rounds towards zero: -(-5 // 2) is 3, but was 2
        return op.Div(op.Sub(a, op.Mod(a, b)), b)

    return {torch.ops.nasmvt.survivors.default: survivors, operator.floordiv: floordiv}


def _name_by_weights(model: "ir.Model") -> None:
    """Name what is computed from one weight and constants after it: the optimizer makes weights of such values."""
    origins: dict[ir.Value, str] = {}
    for number, node in enumerate(model.graph):
        sources = set()
        for value in node.inputs:
            if value is None or _is_constant(value):
                continue
            sources.add(origins.get(value) or (str(value.name) if value.is_initializer() else None))
        if (
            len(sources) == len(node.outputs) == 1
            and (source := sources.pop())
            and not node.outputs[0].is_graph_output()
        ):
            origins[node.outputs[0]] = source
            node.outputs[0].name = f"{source}.{node.op_type.lower()}.{number}"


def _is_constant(value: "ir.Value") -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "Constant"


def _small_enough(node: "ir.Node") -> bool | None:
    """Return False for a node whose computed constant would outgrow what it replaces, else None, the usual rules."""
    shape = node.outputs[0].shape
    if shape is None or not shape.is_static() or len(shape) < 2:
        return None
    given = [value for value in node.inputs if value is not None and len(value.uses()) == 1]
    replaced = sum(value.const_value.size for value in given if value.const_value is not None)
    return None if np.prod(shape.numpy()) <= max(_LARGEST_CONSTANT, replaced) else False


def _strip(model: "ir.Model") -> None:
    """Take out what only a debugger reads: where each node came from, and shapes of inner values."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    kept = {*model.graph.inputs, *model.graph.outputs}
    for value in model.graph.initializers.values():
        value.metadata_props.clear()
    for number, node in enumerate(model.graph.all_nodes()):
        node.metadata_props.clear()
        node.doc_string = None
        node.name = str(number)
        _drop_defaults(node)
        for value in node.outputs:
            value.metadata_props.clear()
            if value not in kept:
                value.shape = value.type = None


def _drop_defaults(node: "ir.Node") -> None:
    """Take out attributes that say what holds without them; in small networks they weigh as much as weights do."""
    import onnx

    schema = onnx.defs.get_schema(node.op_type, _OPSET, node.domain)
    for name, attribute in list(node.attributes.items()):
        default = schema.attributes[name].default_value
        usual = onnx.helper.get_attribute_value(default) if default.type else _CONVOLUTION.get((node.op_type, name))
        given = list(attribute.value) if isinstance(attribute.value, (list, tuple)) else attribute.value
        if usual is not None and given in (usual, usual.decode() if isinstance(usual, bytes) else usual):
            del node.attributes[name]


_CONVOLUTION = {("Conv", "strides"): [1, 1], ("Conv", "dilations"): [1, 1], ("Conv", "pads"): [0, 0, 0, 0]}
"""What a convolution takes without these attributes; the standard says it in words."""


class Weights:
    """Tensors of several graphs, each stored once."""

    def __init__(self) -> None:
        self._places: dict[tuple[Any, ...], tuple[int, int]] = {}
        self._chunks: list[bytes] = []
        self._size = 0

    def place(self, content: bytes, key: tuple[Any, ...]) -> tuple[int, int]:
        """Return offset and length of a tensor in the file; equal ones have the same place."""
        key = (*key, hashlib.sha256(content).digest())
        if key not in self._places:
            gap = -self._size % 64
            self._chunks += [b"\0" * gap, content]
            self._places[key] = (self._size + gap, len(content))
            self._size += gap + len(content)
        return self._places[key]

    def write(self, path: Path) -> None:
        """Write the file."""
        path.write_bytes(b"".join(self._chunks))


def write_graphs(models: Mapping[str, "ir.Model"], folder: Path) -> None:
    """Write `<name>.onnx` for every model, and their tensors into one file beside them, equal ones once."""
    import onnx_ir as ir

    weights = Weights()
    for model in models.values():
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.nbytes < _INSIDE:
                continue
            array = np.ascontiguousarray(tensor.numpy())
            offset, length = weights.place(array.tobytes(), (tensor.dtype, tuple(array.shape)))
            name, shape = str(value.name), ir.Shape(array.shape)
            value.const_value = ir.ExternalTensor(
                WEIGHTS, offset, length, tensor.dtype, name=name, shape=shape, base_dir=folder
            )
    weights.write(folder / WEIGHTS)
    for name, model in models.items():
        ir.save(model, folder / f"{name}.onnx")


def read_graph(path: Path) -> "ir.Model":
    """Read a file; its tensors stay where they are until they are used."""
    import onnx_ir as ir

    return ir.load(path)


def write_graph(model: "ir.Model", path: Path) -> None:
    """Write a model as one file, tensors included."""
    import onnx_ir as ir

    ir.save(model, path)
