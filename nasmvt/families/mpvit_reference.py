"""MPViT's published checkpoints: from the names and layouts of the released code to ours."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from nasmvt.errors import UserError
from nasmvt.families.reference import State, rename, reordered

_STAGE, _PATH = r"mhca_stages\.(\d+)\.", r"mhca_stages\.(\d+)\.mhca_blks\.(\d+)\."
_BLOCK = _PATH + r"MHCA_layers\.(\d+)\."
_EMBED = r"patch_embed_stages\.(\d+)\.patch_embeds\.(\d+)\.patch_conv\."
_RULES = (
    (r"stem\.(.+)", r"backbone.stem.\1"),
    (_EMBED + r"dwconv\.(.+)", r"backbone.stages.\1.embeds.\2.dwconv.\3"),
    (_EMBED + r"pwconv\.(.+)", r"backbone.stages.\1.embeds.\2.pwconv.conv.\3"),
    (_EMBED + r"bn\.(.+)", r"backbone.stages.\1.embeds.\2.pwconv.bn.\3"),
    (_STAGE + r"InvRes\.(conv[12]\..+)", r"backbone.stages.\1.local.\2"),
    (_STAGE + r"InvRes\.dwconv\.(.+)", r"backbone.stages.\1.local.dwconv.conv.\2"),
    (_STAGE + r"InvRes\.norm\.(.+)", r"backbone.stages.\1.local.dwconv.bn.\2"),
    (_STAGE + r"aggregate\.(.+)", r"backbone.stages.\1.aggregate.\2"),
    (_PATH + r"cpe\.proj\.(.+)", r"backbone.stages.\1.paths.\2.cpe.\3"),
    (_PATH + r"crpe\.conv_list\.(.+)", r"backbone.stages.\1.paths.\2.crpe.convs.\3"),
    (_BLOCK + r"factoratt_crpe\.(.+)", r"backbone.stages.\1.paths.\2.blocks.\3.attn.\4"),
    (_BLOCK + r"((?:norm[12]|mlp)\..+)", r"backbone.stages.\1.paths.\2.blocks.\3.\4"),
    (r"cls_head\.cls\.(.+)", r"head.fc.\1"),
)
_ALIAS = re.compile(r"(.+\.mhca_blks\.\d+\.)(MHCA_layers\.\d+\.)(?:factoratt_crpe\.(?=crpe))?(cr?pe\..+)")


def convert(state: State, network: nn.Module) -> dict[str, Tensor]:
    """Convert the tensors of a published checkpoint to the names and layouts of our `Classifier`.

    The copies of a path's position encodings that its blocks hold are left out.

    Raises:
        UserError: if such a copy differs from the path's own.
    """
    tensors = rename(_without_aliases(state), _RULES)
    stages: Any = network.get_submodule("backbone.stages")
    for number, stage in enumerate(stages):
        prefix, heads = f"backbone.stages.{number}", stage.num_heads
        _divide(tensors, f"{prefix}.aggregate", stage.aggregate.convs[0].in_channels)
        for path, modules in enumerate(stage.paths):
            for group, members in enumerate(modules.crpe.groups):
                for leaf in ("weight", "bias"):
                    _channel_major(tensors, f"{prefix}.paths.{path}.crpe.convs.{group}.{leaf}", (members,))
            for block in range(len(modules.blocks)):
                attention = f"{prefix}.paths.{path}.blocks.{block}.attn"
                _channel_major(tensors, f"{attention}.qkv.weight", (3, heads))
                _channel_major(tensors, f"{attention}.qkv.bias", (3, heads))
                _channel_major(tensors, f"{attention}.proj.weight", (heads,), dim=1)
    return tensors


def _without_aliases(state: State) -> dict[str, Tensor]:
    kept = {}
    for key, tensor in state.items():
        match = _ALIAS.fullmatch(key)
        path, block, encoding = match.groups() if match else ("", "", "")
        owner = path + encoding
        if owner not in state or f"{path}{block}norm1.weight" not in state:
            kept[key] = tensor
        elif not torch.equal(tensor, state[owner]):
            raise UserError(
                f"the blocks of a path of MPViT have their position encodings in common, but {key} differs from "
                f"{owner}: fix the checkpoint"
            )
    return kept


def _divide(tensors: dict[str, Tensor], aggregate: str, width: int) -> None:
    """Divide the weight of an aggregation by input channels into one per path."""
    whole = tensors.get(f"{aggregate}.conv.weight")
    if whole is not None and whole.ndim == 4:
        del tensors[f"{aggregate}.conv.weight"]
        for path, part in enumerate(torch.split(whole, width, dim=1)):
            tensors[f"{aggregate}.convs.{path}.weight"] = part


def _channel_major(tensors: dict[str, Tensor], name: str, sizes: tuple[int, ...], dim: int = 0) -> None:
    """Reorder a dimension that enumerates (*sizes, channel) to (channel, *sizes)."""
    if name in tensors:
        tensors[name] = reordered(tensors[name], (*sizes, -1), (len(sizes), *range(len(sizes))), dim)
