"""Which parts stay in float."""

from nasmvt.export.onnx_int8 import chosen_parts

HURTS = {"neck": 3.0, "stem": 0.9, "head": 0.2}


def loss(kept):
    return sum(points for part, points in HURTS.items() if part not in kept)


def test_what_hurts_most_is_kept_until_little_is_lost():
    assert chosen_parts(HURTS, loss, 5.0) == (set(), 4.1)
    kept, lost = chosen_parts(HURTS, loss, 1.5)
    assert kept == {"neck"}
    assert round(lost, 3) == 1.1
    assert chosen_parts(HURTS, loss, 0.5)[0] == {"neck", "stem"}


def test_parts_that_gain_nothing_are_quantised():
    assert chosen_parts(HURTS, lambda kept: 2.0, 1.0) == (set(), 2.0)
