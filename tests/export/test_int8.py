"""Which parts stay in float."""

import onnxruntime
import torch

from nasmvt.export.onnx_graph import to_onnx, write_graphs
from nasmvt.export.onnx_int8 import chosen_parts, parts, within

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
