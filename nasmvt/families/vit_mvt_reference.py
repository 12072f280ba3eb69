"""Reading the checkpoints of ViT-MVT's authors: names, layouts, scores, and the arch inferred from shapes.

Their networks keep an adaptive layer as a shared weight, a specific weight and a score, all in the file of one task;
the weight in use is selected here, so that a converted backbone is plain. `convert` drops exactly the tensors that
`unused` lists; any other tensor that is missing, left over or misshapen is an error.

The authors' inference code reads the weight of `qkv` differently from what a score means: it always takes
the shared weight and switches only the bias. `qkv="reference"` selects that behaviour.

Shapes: N patches, C channels, h heads, d head width, S rows of a relative position table.
"""

import re
from collections.abc import Iterator
from math import isqrt
from typing import Any, Literal

import torch
from torch import Tensor

from nasmvt.errors import UserError
from nasmvt.families.reference import Rules, State, check_fit, rename, reordered
from nasmvt.families.rounding import multiple
from nasmvt.families.vit_mvt import ViTMVT
from nasmvt.space import Arch, SearchSpace

QKV = Literal["specific", "reference"]
"""How the weight of qkv is read at a score of at most 0.5: the specific one, or the shared one as the authors do."""

NORM_EPS = 1e-5
"""Epsilon of every LayerNorm of the published subnets."""

THRESHOLD = 0.5
"""An adaptive layer uses its shared weight if its score is above this."""

_NAMES: Rules = (
    (r"stem\.(.+)", r"cnn_pre.\1"),
    (r"patch_embed\.(.+)", r"patch_embed.proj.\1"),
    (r"pos_embed", "pos_embed.cls_token"),
    (r"norm\.(.+)", r"ln1.\1"),
    (r"blocks\.(\d+)\.norm([12])\.(.+)", r"layers.\1.ln\2.\3"),
    (r"blocks\.(\d+)\.lpu\.(.+)", r"layers.\1.dw_init.dwconv.\2"),
    (r"blocks\.(\d+)\.dwconv\.(.+)", r"layers.\1.dw.dwconv.\2"),
    (r"blocks\.(\d+)\.se\.fc([12])\.(.+)", r"layers.\1.se.conv\2.conv.\3"),
    (r"blocks\.(\d+)\.attn\.relative_bias", r"layers.\1.attn.relative_position_bias_table"),
    (r"blocks\.(\d+)\.(attn\.qkv|attn\.proj|fc1|fc2)\.(.+)", r"layers.\1.\2.\3"),
)
"""Our names to the published ones, below `backbone.`; the residual convolutions' follow from the network."""

_INDEX = re.compile(r"layers\.\d+\.attn\.relative_position_index")
_BUFFER = re.compile(r".*\.(running_mean|running_var|num_batches_tracked|relative_position_index)")
_ADAPTIVE = re.compile(r"layers\.\d+\.(attn\.qkv|attn\.proj|fc1|fc2)")
_LAYER = re.compile(r"layers\.(\d+)\..+")


def published_names(backbone: ViTMVT) -> dict[str, str]:
    """Return the published key, below `backbone.`, of every tensor of our backbone."""
    ours = backbone.state_dict()
    convs: Rules = [
        (rf"stage_convs\.{stage}\.(.+)", rf"layers.{block}.cnn_aggregation.\1")
        for stage, block in enumerate(backbone.conv_blocks)
    ]
    return dict(zip(ours, rename(ours, [*_NAMES, *convs]), strict=True))


def wanted(backbone: ViTMVT, state: State) -> dict[str, Tensor]:
    """Return what a published state must hold for a backbone, index buffers aside, as tensors on `meta`.

    Args:
        backbone: a network of ours.
        state: tensors by published name, below `backbone.`; the relative position tables are kept with a column
            for every head of the space, so their width is read here and only has to suffice.
    """
    found = {}
    ours = backbone.state_dict()
    for name, key in published_names(backbone).items():
        shape = ours[name].shape
        if name == "pos_embed":
            shape = torch.Size((1, shape[2] * shape[3], shape[1]))
        elif name.endswith("relative_bias") and key in state and state[key].ndim == 2:
            shape = torch.Size((shape[0], max(shape[1], state[key].shape[1])))
        found[key] = torch.empty(shape, device="meta")
    return with_variants(found, {key.rpartition(".")[0] for key in found if _adaptive(key)})


def with_variants(tensors: State, layers: set[str]) -> dict[str, Tensor]:
    """Add to wanted tensors the specific ones and the score that the adaptive ones among the layers have."""
    found = dict(tensors)
    for key, tensor in tensors.items():
        layer, _, leaf = key.rpartition(".")
        if layer in layers:
            found[f"{layer}.specific_{leaf}"] = tensor
            found[f"{layer}.score"] = torch.empty(1, device="meta")
    return found


def kept(state: State) -> dict[str, Tensor]:
    """Return a published state without its index buffers, which our network computes."""
    return {key: tensor for key, tensor in state.items() if not _INDEX.fullmatch(key)}


def convert(
    state: State, backbone: ViTMVT, *, qkv: QKV = "specific", source: str = "the checkpoint"
) -> dict[str, Tensor]:
    """Turn published tensors into those of our backbone: selected by score, renamed, in our layout, float32.

    Args:
        state: tensors by published name, below `backbone.`.
        backbone: a network of ours with the same sizes; it may be on `meta`.
        qkv: how the weight of qkv is read at a score of at most 0.5.
        source: where the tensors come from, named in errors.

    Raises:
        UserError: if a tensor is missing, left over or of another shape, by its published name.
    """
    given = kept(state)
    check_fit(given, wanted(backbone, given), source)
    ours = backbone.state_dict()
    return {
        name: _laid_out(name, chosen(given, key, qkv), ours[name], backbone).to(ours[name].dtype)
        for name, key in published_names(backbone).items()
    }


def chosen(state: State, key: str, qkv: QKV = "specific") -> Tensor:
    """Return the tensor that a network uses under a key: of an adaptive layer the one that its score names."""
    return state[_chosen_key(state, key, qkv)]


def is_shared(state: State, layer: str) -> bool:
    """Return whether an adaptive layer of a published state uses its shared weight (score above 0.5)."""
    return bool(state[f"{layer}.score"].item() > THRESHOLD)


def unused(state: State, backbone: ViTMVT | None = None, qkv: QKV = "specific") -> dict[str, dict[str, int]]:
    """Return what a published state holds that the converted network does not use: rule to key to elements.

    Args:
        state: tensors by published name, as `convert` takes them.
        backbone: the network that they are for, which tells how many columns of a relative table are used; None
            for a state without such tables.
        qkv: how the weight of qkv is read.
    """
    rules: dict[str, dict[str, int]] = {}
    for rule, key, count in _unused(state, backbone, qkv):
        rules.setdefault(rule, {})[key] = count
    return rules


def parameters_in(state: State) -> int:
    """Return the parameters that a published state stores: all but index buffers and BatchNorm statistics."""
    return sum(tensor.numel() for key, tensor in state.items() if not _BUFFER.fullmatch(key))


def infer_arch(state: State, space: SearchSpace, source: str = "the checkpoint") -> Arch:
    """Infer the arch from the shapes of a published state.

    `embed_dim` is the width of the patch embedding, `depth` the number of layers, `num_heads` the rows of qkv over
    three head widths, `mlp_ratio` the first option of the space that gives the rows of fc1.

    Args:
        state: tensors by published name, below `backbone.`.
        space: a space of the family `vit_mvt`.
        source: where the tensors come from, named in errors.

    Raises:
        UserError: if a tensor that determines the arch is missing, or the arch is not in the space.
    """
    width = _rows(state, "patch_embed.proj.weight", source)
    depth = 1 + max((int(found[1]) for key in state if (found := _LAYER.fullmatch(key))), default=-1)
    unit = 3 * int(space.fixed.get("head_dim", 64))
    options, round_to = space.choices["mlp_ratio"].options, int(space.fixed.get("round_to", 1))
    heads, ratios = [], []
    for block in range(depth):
        rows = _rows(state, f"layers.{block}.attn.qkv.weight", source)
        hidden = _rows(state, f"layers.{block}.fc1.weight", source)
        heads.append(rows // unit if rows % unit == 0 else rows / unit)
        fitting = (option for option in options if multiple(float(option) * width, round_to) == hidden)
        ratios.append(next(fitting, hidden / width))
    values = {"depth": depth, "embed_dim": width, "num_heads": heads, "mlp_ratio": ratios}
    try:
        return space.arch(values, f"{source}, by its shapes,")
    except UserError as error:
        raise UserError(f"{error}: name the space that the checkpoint belongs to") from None


def position_side(state: State, source: str = "the checkpoint") -> int:
    """Return the side, in patches, of the square grid that the position embedding (1, N, C) is made for.

    Raises:
        UserError: if there is no such tensor, or N is no square.
    """
    key = "pos_embed.cls_token"
    table = state.get(key)
    count = table.shape[1] if table is not None and table.ndim == 3 else 0
    if not count or isqrt(count) ** 2 != count:
        found = "none" if table is None else f"one of shape {tuple(table.shape)}"
        raise UserError(
            f"{source} must hold {key} with a row per patch of a square grid, but holds {found}: check the file"
        )
    return isqrt(count)


def _adaptive(key: str) -> bool:
    return _ADAPTIVE.fullmatch(key.rpartition(".")[0]) is not None


def _rows(state: State, key: str, source: str) -> int:
    if key not in state or not state[key].ndim:
        raise UserError(f"{source} must hold {key}, which tells the arch, but does not: give a ViT-MVT checkpoint")
    return state[key].shape[0]


def _chosen_key(state: State, key: str, qkv: QKV) -> str:
    layer, _, leaf = key.rpartition(".")
    if f"{layer}.score" not in state or is_shared(state, layer):
        return key
    if qkv == "reference" and layer.endswith(".attn.qkv") and leaf == "weight":
        return key
    return f"{layer}.specific_{leaf}"


def _laid_out(name: str, tensor: Tensor, ours: Tensor, backbone: ViTMVT) -> Tensor:
    """Convert a published tensor to our layout."""
    if name == "pos_embed":  # (1, N, C) -> (1, C, height, width)
        return tensor.transpose(1, 2).reshape(ours.shape)
    if name.endswith("relative_bias"):  # (S, heads of the space) -> (S, h)
        return tensor[:, : ours.shape[1]]
    if ".qkv." not in name:
        return tensor
    heads = _heads(backbone)[int(name.split(".")[1])]
    if name.endswith("weight"):  # rows (h, d, q/k/v) -> (h, q/k/v, d)
        return reordered(tensor, (heads, -1, 3), (0, 2, 1))
    return reordered(tensor, (3, heads, -1), (1, 0, 2))  # (q/k/v, h, d) -> (h, q/k/v, d)


def _heads(backbone: ViTMVT) -> list[int]:
    blocks: Any = backbone.blocks
    return [block.attn.num_heads for block in blocks]


def _unused(state: State, backbone: ViTMVT | None, qkv: QKV) -> Iterator[tuple[str, str, int]]:
    heads = _heads(backbone) if backbone else []
    layers = [key.removesuffix(".score") for key in state if key.endswith(".score")]
    for layer in layers:
        yield "scores, settled by the choice of a weight", f"{layer}.score", 1
        used = {_chosen_key(state, f"{layer}.{leaf}", qkv) for leaf in ("weight", "bias")}
        for leaf in ("weight", "bias"):
            for key in (f"{layer}.{leaf}", f"{layer}.specific_{leaf}"):
                if key in state and key not in used:
                    rule = "specific" if ".specific_" in key else "shared"
                    yield f"{rule} weights that the scores don't choose", key, state[key].numel()
    for key, tensor in state.items():
        if _INDEX.fullmatch(key):
            yield "relative position indices, recomputed", key, tensor.numel()
        elif key.endswith("relative_position_bias_table"):
            spare = tensor.shape[1] - heads[int(key.split(".")[1])]
            if spare:
                yield "columns of relative position tables beyond a block's heads", key, spare * tensor.shape[0]
