"""Which parts stay in float."""

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from nasmvt.export.onnx_graph import to_onnx, write_graphs
from nasmvt.export.onnx_int8 import chosen_parts, parts, quantise, within

HURTS = {"neck": 3.0, "stem": 0.9, "head": 0.2}


def loss(kept):
    return sum(points for part, points in HURTS.items() if part not in kept)


def test_what_hurts_most_is_kept_until_little_is_lost():
    assert chosen_parts(HURTS, loss, 5.0) == (set(), 4.1)
    kept, lost = chosen_parts(HURTS, loss, 1.5)
    assert kept == {"neck"}
    assert round(lost, 3) == 1.1
    assert chosen_parts(HURTS, loss, 0.5)[0] == {"neck", "stem"}


def test_if_it_is_never_little_the_smallest_loss_counts():
    other = {frozenset(): 3.0, frozenset({"a"}): 2.0, frozenset({"b"}): 2.5, frozenset({"a", "b"}): 2.2}
    assert chosen_parts({"a", "b"}, lambda kept: other[frozenset(kept)], 1.0) == ({"a"}, 2.0)


def test_a_part_is_within_what_holds_it():
    assert within("backbone.blocks.2", ["head", "backbone.blocks"])
    assert not within("backbone.blocks.12", ["backbone.blocks.1"])


def test_parts_that_gain_nothing_are_quantised():
    assert chosen_parts(HURTS, lambda kept: 2.0, 1.0) == (set(), 2.0)


def test_weights_that_are_turned_keep_their_names_and_every_value_its_own(tmp_path):
    layer = torch.nn.Linear(4, 4)

    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.ModuleDict({"fc": layer})

        def forward(self, x):
            return {"logits": self.head["fc"](self.head["fc"](x).relu())}

    program = torch.export.export(Twice(), (torch.zeros(2, 3, 4),))
    write_graphs({"cls": to_onnx(program)}, tmp_path)
    assert parts(tmp_path / "cls.onnx") == {"head.fc"}
    x = torch.randn(2, 3, 4)
    (found,) = onnxruntime.InferenceSession(tmp_path / "cls.onnx").run(None, {"x": x.numpy()})
    assert torch.allclose(torch.from_numpy(found), program.module()(x)["logits"], atol=1e-6)


class Backbone(nn.Module):
    """A convolution whose range bounds it, a table of positions, a product with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.positions = nn.Parameter(torch.randn(1, 16, 16, 16))
        self.mix = nn.Linear(16, 96)

    def forward(self, images: Tensor) -> Tensor:
        x = self.up(self.deep(self.stem(images).relu()).clamp(0, 6)) + self.positions
        return self.mix(x.flatten(2).transpose(1, 2)).sigmoid().mean(1)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.ModuleDict({"backbone": Backbone(), "head": nn.Linear(96, 5)})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": self.network["head"](self.network["backbone"](images))}


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    """A function from the parts that stay in float to a quantised file; the network, and images."""
    folder = tmp_path_factory.mktemp("int8")
    torch.manual_seed(0)
    network, images = Network().eval(), torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        program = torch.export.export(network, (), {"images": images}, dynamic_shapes={"images": {0: Dim("batch")}})
    write_graphs({"float": to_onnx(program)}, folder)

    def make(kept=()):
        quantise(folder / "float.onnx", folder / "int8.onnx", [{"images": images}], kept)
        return folder / "int8.onnx"

    return make, network, images


def test_a_quantised_file_computes_what_the_network_does_in_integers(quantised, tmp_path):
    make, network, images = quantised
    path, options = make(), onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "run.onnx")
    options.log_severity_level = 3
    (found,) = onnxruntime.InferenceSession(path, options).run(None, {"images": images.numpy()})
    assert torch.allclose(torch.from_numpy(found), network(images)["logits"], atol=0.01)
    operators = [node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node]
    assert operators.count("QLinearConv") == 2
    assert {"MatMulIntegerToFloat", "QGemm"} <= {*operators}, operators
    assert not {"Conv", "MatMul", "Gemm", "Relu", "Clip", "Cast"} & {*operators}


def test_a_quantised_file_holds_nothing_twice_and_nothing_unused(quantised):
    graph = onnx.load(quantised[0]()).graph
    used = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= used
    floats = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer if tensor.data_type == 1}
    casts = {node.output[0] for node in graph.node if node.op_type == "Cast"}
    scaled = ("QuantizeLinear", "DequantizeLinear")
    scales = {node.input[1] for node in graph.node if node.op_type in scaled or node.input[0] in casts}
    rest = [shape for name, shape in floats.items() if name not in scales]
    assert sorted(shape for shape in rest if shape) == [(16,), (96,)]  # biases that are added in float
    makers = {name: node for node in graph.node for name in node.output}
    biases = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[1] in makers]
    assert [makers[node.input[1]].op_type for node in biases] == ["Mul"] * 3  # scales of biases are products


def test_tables_stay_in_float_with_the_part_that_they_are(quantised):
    def tables(kept):
        return [
            tensor.data_type
            for tensor in onnx.load(quantised[0](kept)).graph.initializer
            if tensor.dims[1:] == [16, 16, 16]
        ]

    assert tables([]) == [onnx.TensorProto.INT8]
    assert tables(["backbone.positions"]) == [onnx.TensorProto.FLOAT]
