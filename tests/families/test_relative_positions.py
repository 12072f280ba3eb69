"""Relative positions inside windows: the index of Swin, and ViTAEv2 with a table in every window attention."""

import json

import pytest
import torch

from nasmvt.errors import UserError
from nasmvt.families import family, published
from nasmvt.families.biased_attention import relative_bias, relative_position_index
from nasmvt.families.reference import load_reference
from nasmvt.families.vitae_v2 import convert
from nasmvt.families.vitae_v2_cells import Attention, ReductionAttention
from nasmvt.space import load_space
from tests.conftest import randomize
from tests.families.reference import SHARED

TABLES = [(stage, cell) for stage in (0, 1) for cell in ("RC.attn", "NC.0", "NC.1")]
OURS = {"RC.attn": "reduction", "NC.0": "blocks.0", "NC.1": "blocks.1"}


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (7, 7)])
def test_the_bias_of_two_tokens_is_that_of_their_distance(height, width):
    table = torch.rand((2 * height - 1) * (2 * width - 1), 2)
    bias = relative_bias(table, relative_position_index(height, width, table.device))
    by_distance = table.view(2 * height - 1, 2 * width - 1, 2)
    places = [(row, column) for row in range(height) for column in range(width)]
    for i, (row, column) in enumerate(places):
        for j, (other_row, other_column) in enumerate(places):
            expected = by_distance[row - other_row + height - 1, column - other_column + width - 1]
            assert torch.equal(bias[0, :, i, j], expected)


def state_with_tables() -> dict[str, torch.Tensor]:
    """The published keys of ViTAEv2-S, and those of a classifier with `relative_pos`: a table per window attention."""
    path = SHARED / "parity" / "keys_vitaev2_s.json"
    if not path.is_file():
        pytest.skip(f"key list {path} is absent: set NASMVT_SHARED")
    state = {key: torch.rand(shape) for key, shape in json.loads(path.read_text()).items()}
    indices = {key for key in state if key.endswith("relative_position_index")}
    tables = {f"layers.{s}.{c}.attn.relative_position_bias_table": torch.rand(13 * 13, s + 1) for s, c in TABLES}
    tables |= {f"layers.{s}.RC.attn.attn.relative_position_bias_table": torch.rand(13 * 13, 1) for s in (0, 1)}
    assert {key.replace("bias_table", "index") for key in tables} == indices
    return state | tables


def test_published_tables_load_exactly():
    state = state_with_tables()
    network = published("vitae_v2_s", relative_positions=True, weights=state)
    plain = published("vitae_v2_s")
    held = {name for name, _ in network.named_parameters()} - {name for name, _ in plain.named_parameters()}
    assert held == {f"backbone.stages.{stage}.{OURS[cell]}.attn.relative_bias" for stage, cell in TABLES}
    for stage, cell in TABLES:
        table = network.get_parameter(f"backbone.stages.{stage}.{OURS[cell]}.attn.relative_bias")
        assert torch.equal(table, state[f"layers.{stage}.{cell}.attn.relative_position_bias_table"])


def test_tables_are_refused_by_a_network_without_and_missed_by_one_with_them():
    state = state_with_tables()
    with pytest.raises(UserError, match=r"surplus: backbone\.stages\.0\.reduction\.attn\.relative_bias, "):
        published("vitae_v2_s", weights=state)
    del state["layers.1.NC.1.attn.relative_position_bias_table"]
    network = published("vitae_v2_s", relative_positions=True)
    with pytest.raises(UserError, match=r"missing: backbone\.stages\.1\.blocks\.1\.attn\.relative_bias: "):
        load_reference(network, state, convert)


@pytest.mark.parametrize(
    "attention", [Attention(8, 2, 4, table=3), ReductionAttention(8, 8, 2, residual=False, table=3)]
)
def test_attention_in_windows_adds_the_bias_to_its_scaled_logits(attention):
    randomize(attention)
    x = torch.rand(2, 9, 8)
    if isinstance(attention, Attention):
        q, k, v = attention.qkv(x).view(2, 9, 2, 3, 4).permute(3, 0, 2, 1, 4)
    else:
        q, k, v = attention.qkv(x).view(2, 9, 2, 4, 3).permute(4, 0, 2, 1, 3)
    bias = relative_bias(attention.relative_bias, relative_position_index(3, 3, x.device))
    logits = q @ k.transpose(2, 3) / 2 + bias
    expected = attention.proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x), expected)


def test_a_space_fixes_the_option_and_whole_maps_have_no_table():
    space = load_space("vitae_v2_nano")
    build = family("vitae_v2").build
    network = build(space.largest, kind="detection", image_size=(64, 64), **space.fixed, relative_positions=True)
    tables = {name: p.shape for name, p in network.named_parameters() if name.endswith("relative_bias")}
    assert {name.split(".")[1] for name in tables} == {"0", "1"}
    assert {shape[0] for shape in tables.values()} == {(2 * space.fixed["window_size"] - 1) ** 2}
    assert all(m.shape[1] == width for m, width in zip(network(torch.rand(1, 3, 40, 64)), network.widths, strict=True))
