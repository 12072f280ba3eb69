"""The two classifiers of the published LVT, and the converter of their checkpoints.

The classifiers are the plain one, and one with class attention ("Going deeper with image
transformers", ICCV 2021, as in VOLO) and an auxiliary head over the tokens.

In training the second returns the logits of the class token and of every token, as token labelling needs them; the
training itself is the head `class_attention`.
Differences: the rows of `kv` lie head by head, as in `lvt.py`.

Shapes: B batch, N tokens, C channels, H height, W width, K classes, h heads, c head width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from nasmvt.families.layers import MeanLinear, start_linear, to_tokens
from nasmvt.families.lvt_attention import KeyValue
from nasmvt.families.reference import Rules, State, rename, reordered


class NormedMeanLinear(MeanLinear):
    """LayerNorm over the last map, its mean, then a linear layer.

    Args:
        width: channels C of the last map.
        classes: number of classes K.
        norm_eps: epsilon of the LayerNorm.
    """

    def __init__(self, width: int, classes: int, norm_eps: float = 1e-5) -> None:
        super().__init__(width, classes)
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.apply(start_linear)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn maps, of which the last is (B, C, H, W), into logits (B, K)."""
        logits: Tensor = self.fc(self.norm(to_tokens(maps[-1])).mean(1))
        return logits


class ClassAttentionHead(nn.Module):
    """A class token reads the tokens of the last map; an auxiliary layer classifies every token.

    Args:
        width: channels C of the last map.
        classes: number of classes K.
        num_heads: heads of the class attention.
        mlp_ratio: hidden width of the blocks' MLPs over C.
        blocks: number of class-attention blocks.
        qkv_bias: whether q, k and v have a bias.
        norm_eps: epsilon of every LayerNorm.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        *,
        num_heads: int,
        mlp_ratio: float = 4,
        blocks: int = 2,
        qkv_bias: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.blocks = nn.ModuleList(
            ClassBlock(width, num_heads, int(width * mlp_ratio), qkv_bias, norm_eps) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.fc = nn.Linear(width, classes)
        self.aux_fc = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        self.apply(start_linear)

    def forward(self, maps: Sequence[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """Turn maps, of which the last is (B, C, H, W), into logits (B, K).

        In training: the logits of the class token (B, K), and the auxiliary ones of every token (B, N, K).
        """
        tokens = to_tokens(maps[-1])
        token = self.cls_token.expand(len(tokens), -1, -1)
        for block in self.blocks:
            token = block(token, tokens)
        normed = self.norm(torch.cat((token, tokens), 1))
        logits, aux = self.fc(normed[:, 0]), self.aux_fc(normed[:, 1:])
        if self.training:
            return logits, aux
        return logits + 0.5 * aux.amax(1)


class ClassBlock(nn.Module):
    """Class attention and MLP, both residual; only the class token changes."""

    def __init__(self, dim: int, num_heads: int, hidden: int, qkv_bias: bool, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = ClassAttention(dim, num_heads, qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, hidden)

    def forward(self, token: Tensor, tokens: Tensor) -> Tensor:
        """Update the class token (B, 1, C) by itself and the tokens (B, N, C)."""
        token = token + self.attn(self.norm1(torch.cat((token, tokens), 1)))
        result: Tensor = token + self.mlp(self.norm2(token))
        return result


class ClassAttention(nn.Module):
    """Attention whose only query is the first token."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = KeyValue(dim, num_heads, qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map the class token and the others (B, 1 + N, C) to an update of the first (B, 1, C)."""
        q = self.q(x[:, :1]).unflatten(2, (self.kv.num_heads, -1)).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, *self.kv.heads(x))
        result: Tensor = self.proj(y.transpose(1, 2).flatten(2))
        return result


_RULES: Rules = (
    (r"backbone\.(\d+)\.0\.(.+)", r"backbone.stages.\1.patch_embed.\2"),
    (r"backbone\.(\d+)\.1\.(\d+)\.attn\.attn\.(.+)", r"backbone.stages.\1.blocks.\2.attn.logits.\3"),
    (r"backbone\.(\d+)\.1\.(\d+)\.attn\.weight\.(.+)", r"backbone.stages.\1.blocks.\2.attn.values.\3"),
    (r"backbone\.(\d+)\.1\.(\d+)\.attn\.ds\.(.+)", r"backbone.stages.\1.blocks.\2.attn.atrous.\3"),
    (r"backbone\.(\d+)\.1\.(\d+)\.attn\.sr\.(.+)", r"backbone.stages.\1.blocks.\2.attn.reduce.proj.\3"),
    (r"backbone\.(\d+)\.1\.(\d+)\.attn\.norm\.(.+)", r"backbone.stages.\1.blocks.\2.attn.reduce.norm.\3"),
    (r"backbone\.(\d+)\.1\.(\d+)\.mlp\.depconv\.(.+)", r"backbone.stages.\1.blocks.\2.mlp.dwconv.\3"),
    (r"backbone\.(\d+)\.1\.(.+)", r"backbone.stages.\1.blocks.\2"),
    (r"downstream_norms\.(.+)", r"backbone.out_norms.\1"),
    (r"norm\.(.+)", r"head.norm.\1"),
    (r"head\.(.+)", r"head.fc.\1"),
    (r"aux_head\.(.+)", r"head.aux_fc.\1"),
    (r"post_network\.(.+)", r"head.blocks.\1"),
    (r"cls_token", r"head.cls_token"),
)
_FINAL_NORM = (r"norm\.(.+)", r"backbone.out_norms.3.\1")


def convert(state: State, network: nn.Module) -> dict[str, Tensor]:
    """Convert published tensors of LVT to our names and layouts.

    Args:
        state: tensors by their published names: of `lvt`, `lvt_cls`, or of the backbone with or without norms of
            its maps.
        network: the `Classifier` that they are for; where its backbone norms the last map alone, the
            classifier's norm goes there.
    """
    parameters = dict(network.named_parameters())
    final_norm = "backbone.out_norms.3.weight" in parameters and "backbone.out_norms.0.weight" not in parameters
    tensors = rename(state, (_FINAL_NORM, *_RULES) if final_norm else _RULES)
    for name, layer in network.named_modules():
        for leaf, wanted in layer.named_parameters(recurse=False):
            tensor = tensors.get(key := f"{name}.{leaf}")
            if tensor is None:
                continue
            if tensor.shape[2:] == (1, 1) and not isinstance(layer, nn.Conv2d):
                tensor = tensor.flatten(1)
            if isinstance(layer, KeyValue):
                tensor = reordered(tensor, (2, layer.num_heads, -1), (1, 0, 2))
            elif name.endswith(".attn.values") and len(tensor) == len(wanted) * 9:
                tensor = reordered(tensor, (9, -1), (1, 0)).unflatten(0, (-1, 9))
            tensors[key] = tensor
    return tensors
