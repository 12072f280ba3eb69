"""ONNX files that take an image as it is, uint8 (h, w, 3), and give its prediction in its own pixels.

What comes before a network (resizing, padding, normalising) and after it is written as operators around its graph.

Shapes: h, w of the image, H, W of the canvas, K classes, n detections, M side of a mask.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nasmvt.errors import UserError, listed
from nasmvt.export.schema import Preprocessing

if TYPE_CHECKING:
    import onnx_ir as ir

SUFFIX = ".image.onnx"
"""What the name of such a file ends in: `cls.image.onnx`."""

_UINT8, _INT64, _FLOAT, _DOUBLE = 2, 7, 1, 11


class _Nodes:
    """Nodes in the order of their computation."""

    def __init__(self) -> None:
        import onnx_ir as ir

        self._ir = ir
        self.all: list[ir.Node] = []

    def __call__(self, operator: str, *inputs: Any, **attributes: Any) -> Any:
        """Add a node; return its value. Inputs that are arrays become constants."""
        given = [self.constant(value) if isinstance(value, np.ndarray) else value for value in inputs]
        return self._add(operator, given, attributes)

    def constant(self, array: np.ndarray) -> Any:
        """Add a constant; return its value."""
        return self._add("Constant", [], {"value": self._ir.tensor(array)})

    def _add(self, operator: str, inputs: list[Any], attributes: Mapping[str, Any]) -> Any:
        node = self._ir.node(operator, inputs, attributes)
        node.outputs[0].name = f"image.{len(self.all)}"
        self.all.append(node)
        return node.outputs[0]


def _ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def _floats(values: Any) -> np.ndarray:
    """Return values of the three channels (1, 3, 1, 1)."""
    return np.asarray(values, dtype=np.float32).reshape(1, 3, 1, 1)


class _Placed:
    """An image on its canvas."""

    def __init__(self, op: _Nodes, image: Any, how: Preprocessing) -> None:
        self.canvas = _ints(*how.canvas)
        self.size = op("Shape", image, start=0, end=2)
        sides = op("Cast", self.size, to=_DOUBLE)
        scale = op("ReduceMin", op("Div", self.canvas.astype(np.float64), sides), _ints(0), keepdims=0)
        rounded = op("Cast", op("Round", op("Mul", sides, scale)), to=_INT64)
        self.valid = op("Max", rounded, _ints(1))
        """Height and width that it covers."""
        pixels = op("Unsqueeze", op("Transpose", image, perm=[2, 0, 1]), _ints(0))
        target = op("Concat", _ints(1, 3), self.valid, axis=0)
        resized = op("Resize", pixels, None, None, target, mode="linear", antialias=1, exclude_outside=1)
        colour = _floats(np.round(np.asarray(how.mean, np.float32) * np.float32(255)))
        spare = op("Concat", _ints(0, 0, 0, 0, 0, 0), op("Sub", self.canvas, self.valid), axis=0)
        padded = op("Pad", op("Sub", op("Cast", resized, to=_FLOAT), colour), spare)
        self.pixels = op("Add", padded, colour)
        """(1, 3, H, W) in 0..255."""
        shares = op("Div", self.pixels, np.float32(how.divisor).reshape(1))
        self.inputs = {
            "images": op("Div", op("Sub", shares, _floats(how.mean)), _floats(how.std)),
            "sizes": op("Unsqueeze", self.valid, _ints(0)),
        }
        """What the network takes."""


Outputs = Mapping[str, Any]


def _classification(op: _Nodes, found: Outputs, placed: _Placed) -> dict[str, Any]:
    """Return `probabilities` (K,)."""
    return {"probabilities": op("Squeeze", op("Softmax", found["logits"], axis=1), _ints(0))}


def _segmentation(op: _Nodes, found: Outputs, placed: _Placed) -> dict[str, Any]:
    """Return `labels` (h, w)."""
    outer = op("Shape", found["logits"], start=0, end=2)

    def resized(maps: Any, size: Any) -> Any:
        return op("Resize", maps, None, None, op("Concat", outer, size, axis=0), mode="linear")

    on_canvas = op("Slice", resized(found["logits"], placed.canvas), _ints(0, 0), placed.valid, _ints(2, 3))
    best = op("ArgMax", resized(on_canvas, placed.size), axis=1, keepdims=0)
    return {"labels": op("Cast", op("Squeeze", best, _ints(0)), to=_UINT8)}


def _detection(op: _Nodes, found: Outputs, placed: _Placed) -> dict[str, Any]:
    """Return `boxes` (n, 4) xyxy, `labels` and `scores` (n,), and maybe `masks` (n, M, M) inside the boxes."""
    own = {
        name: op("Slice", op("Squeeze", value, _ints(0)), _ints(0), found["count"], _ints(0))
        for name, value in found.items()
        if name != "count"
    }
    width_height = _ints(1, 0, 1, 0)
    sides = op("Gather", op("Cast", placed.size, to=_FLOAT), width_height)
    covered = op("Gather", op("Cast", placed.valid, to=_FLOAT), width_height)
    boxes = op("Mul", own["boxes"], op("Div", sides, covered))
    return {**own, "boxes": op("Min", op("Max", boxes, np.zeros(1, np.float32)), sides)}


_AFTER: dict[str, Callable[[_Nodes, Outputs, _Placed], dict[str, Any]]] = {
    "classification": _classification,
    "detection": _detection,
    "segmentation": _segmentation,
}
"""What comes after the networks of each kind of task."""


def check_kind(name: str, kind: str, how: Preprocessing) -> None:
    """Refuse a task, called `name`, whose images or predictions have no such operators.

    Raises:
        UserError: saying why.
    """
    if kind not in _AFTER:
        raise UserError(
            f"--with-preprocessing puts the predictions of {listed(_AFTER)} into the graph, but {name} is a {kind} "
            "task, whose objects are drawn one after the other: leave it out with --task, or use nasmvt predict"
        )
    if how.placement != "fit":
        raise UserError(
            f"--with-preprocessing places images by 'fit', but {name} by '{how.placement}': leave it out with --task"
        )


def placement(how: Preprocessing) -> "ir.Model":
    """Return a model from `image` to its canvas alone, `pixels` (1, 3, H, W) in 0..255 and `sizes` (1, 2)."""
    import onnx_ir as ir

    op, image = _Nodes(), _image()
    placed = _Placed(op, image, how)
    outputs = [_output(placed.pixels, "pixels", ir.DataType.FLOAT), _output(placed.inputs["sizes"], "sizes")]
    graph = ir.Graph([image], outputs, nodes=op.all, opset_imports={"": 18}, name="placement")
    return ir.Model(graph, ir_version=10)


def with_images(core: "ir.Model", kind: str, how: Preprocessing) -> "ir.Model":
    """Return a model from an image to its prediction, around that of a network, which is taken apart.

    Args:
        core: takes and returns what `TaskNetwork.static` does.
        kind: of the task.
        how: how images become its inputs.
    """
    import onnx_ir as ir
    from onnx_ir.convenience import replace_all_uses_with

    before, after, image = _Nodes(), _Nodes(), _image()
    placed = _Placed(before, image, how)
    for value in core.graph.inputs:
        replace_all_uses_with(value, placed.inputs[str(value.name)])
    own = list(core.graph)
    found = {str(value.name): value for value in core.graph.outputs}
    kinds = {name: value.type for name, value in found.items()}
    for name, value in found.items():
        value.name = f"network.{name}"
    core.graph.outputs.clear()
    core.graph.remove(own)
    made = _AFTER[kind](after, found, placed)
    for number, node in enumerate(after.all):
        node.outputs[0].name = f"prediction.{number}"
    initializers = list(core.graph.initializers.values())
    core.graph.initializers.clear()
    types = {"probabilities": ir.TensorType(ir.DataType.FLOAT)}
    if kind == "segmentation":
        types["labels"] = ir.TensorType(ir.DataType.UINT8)
    outputs = [_output(value, name, types.get(name) or kinds[name]) for name, value in made.items()]
    graph = ir.Graph(
        [image],
        outputs,
        nodes=[*before.all, *own, *after.all],
        initializers=initializers,
        opset_imports=core.graph.opset_imports,
        name="nasmvt",
    )
    return ir.Model(graph, ir_version=core.ir_version)


def _image() -> "ir.Value":
    import onnx_ir as ir

    shape = ir.Shape(["height", "width", 3])
    return ir.Value(name="image", type=ir.TensorType(ir.DataType.UINT8), shape=shape)


def _output(value: "ir.Value", name: str, kind: Any = None) -> "ir.Value":
    import onnx_ir as ir

    value.name = name
    value.type = kind if isinstance(kind, ir.TensorType) else ir.TensorType(kind or ir.DataType.INT64)
    return value
