"""LVT, the backbone of "Lite Vision Transformer with Enhanced Self-Attention" (CVPR 2022).

Four stages of an overlapping patch embedding and transformer blocks. The mixer of the first stage is
convolutional self-attention (CSA): attention inside 3 x 3 windows, its weights predicted from the pooled window.
That of the others is recursive atrous self-attention (RASA): the query passes through one depthwise kernel at
several dilations, and the whole attention is applied recursively to its own output with the same weights.

Differences from the released code, all undone by `convert`: the rows of `kv` lie head by head (head, then k/v, then
channel), and the nine value matrices of CSA are one tensor (output channel, tap, input channel), so that a leading
slice is a network with fewer heads; the 1 x 1 convolutions of the MLPs are linear layers; the LayerNorm in front of
the classifier belongs to the head, so that the backbone alone returns what the dense variants return. `drop_path`
works; upstream it never reaches the blocks.

Shapes: B batch, N tokens, C channels, H height and W width in tokens, h heads, c head width, M positions of CSA.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch.nn.functional as F
from pydantic import Field
from timm.layers import DropPath
from torch import Tensor, nn

from nasmvt.errors import UserError
from nasmvt.families.layers import Classifier, to_map, to_tokens
from nasmvt.families.lvt_attention import CSA, RASA, TAPS, AtrousFilter, PatchEmbed, TapLinear
from nasmvt.families.lvt_head import ClassAttentionHead, NormedMeanLinear, convert
from nasmvt.families.published import publishes
from nasmvt.families.registry import RECOMPUTING, register
from nasmvt.families.rounding import Width, multiple
from nasmvt.families.stages import check_per_stage, choices_per_stage, per_stage
from nasmvt.space import Arch, Role

Mixer = Literal["csa", "rasa"]
Mix = Callable[[Tensor, int], Tensor]
Count = Annotated[int, Field(ge=1)]
Ratio = Annotated[float, Field(gt=0)]
_FOUR = Field(min_length=4, max_length=4)

STRIDES = (4, 8, 16, 32)


class LVT(nn.Module):
    """The plain network. Sequences have one entry per stage.

    Args:
        embed_dims: channels of the map.
        depths: number of blocks.
        num_heads: attention heads; divides the channels.
        mlp_ratios: hidden width of the MLP over the channels.
        mixers: "csa" or "rasa".
        sr_ratios: side of the squares of tokens that give one key and value; 1: all tokens do (not used by CSA).
        mlp_depconv: whether the MLP contains a depthwise 3 x 3 convolution.
        atrous_rates: dilations of the one kernel that RASA's query passes through.
        recursions: how often RASA is applied.
        qkv_bias: whether queries, keys and values have a bias.
        drop_path: probability of dropping a residual branch in training: 0 in the first block, this in the last.
        final_norm: whether the last map is normed.
        out_norms: whether every stage ends with a LayerNorm: the normed map is returned and passed to the next stage.
        norm_eps: epsilon of every LayerNorm.
        round_to: widths that are derived from others are the nearest multiples of it; 1: without their fractions.

    Raises:
        UserError: if a size is not given once per stage, or the heads of a stage do not divide its channels.
    """

    def __init__(
        self,
        *,
        embed_dims: Sequence[int],
        depths: Sequence[int],
        num_heads: Sequence[int],
        mlp_ratios: Sequence[float],
        mixers: Sequence[Mixer] = ("csa", "rasa", "rasa", "rasa"),
        sr_ratios: Sequence[int] = (1, 4, 2, 1),
        mlp_depconv: Sequence[bool] = (False, True, True, True),
        atrous_rates: Sequence[int] = (1, 3, 5),
        recursions: int = 2,
        qkv_bias: bool = False,
        drop_path: float = 0.0,
        final_norm: bool = False,
        out_norms: bool = False,
        norm_eps: float = 1e-5,
        round_to: int = 1,
    ) -> None:
        super().__init__()
        check_per_stage(
            "LVT",
            strides=STRIDES,
            embed_dims=embed_dims,
            depths=depths,
            num_heads=num_heads,
            mlp_ratios=mlp_ratios,
            mixers=mixers,
            sr_ratios=sr_ratios,
            mlp_depconv=mlp_depconv,
        )
        self.strides = STRIDES
        self.widths = tuple(embed_dims)
        reduced = [sr if mixer == "rasa" else 1 for mixer, sr in zip(mixers, sr_ratios, strict=True)]
        self.smallest_side = max(stride * (sr - 1) + 1 for stride, sr in zip(STRIDES, reduced, strict=True))
        rates = iter(np.linspace(0, drop_path, sum(depths)).tolist())
        self.stages = nn.ModuleList()
        for stage, (dim, heads) in enumerate(zip(embed_dims, num_heads, strict=True)):
            if dim % heads:
                raise UserError(f"heads must divide the channels of stage {stage + 1}, but {heads} do not divide {dim}")
            inputs, kernel, stride = (embed_dims[stage - 1], 3, 2) if stage else (3, 7, 4)
            patch_embed = PatchEmbed(inputs, dim, kernel, stride, kernel // 2, norm_eps)
            blocks = []
            for _ in range(depths[stage]):
                mixer: nn.Module
                if mixers[stage] == "csa":
                    mixer = CSA(dim, heads, qkv_bias)
                else:
                    mixer = RASA(dim, heads, sr_ratios[stage], atrous_rates, recursions, qkv_bias, norm_eps)
                mlp = MLP(dim, multiple(dim * mlp_ratios[stage], round_to), mlp_depconv[stage])
                blocks.append(Block(dim, mixer, mlp, next(rates), norm_eps))
            self.stages.append(Stage(patch_embed, blocks))
        normed = [out_norms] * 3 + [out_norms or final_norm]
        self.out_norms = nn.ModuleList(
            nn.LayerNorm(dim, eps=norm_eps) if norm else nn.Identity()
            for dim, norm in zip(embed_dims, normed, strict=True)
        )
        self.apply(_init_weights)

    def forward(self, images: Tensor, mix: Mix | None = None) -> tuple[Tensor, ...]:
        """Map images (B, 3, H', W') to the maps (B, C, H, W) of the four stages, at strides 4, 8, 16 and 32.

        Args:
            images: the images.
            mix: takes the first patch embedding and its stride, and returns what to go on with: a training that mixes
                tokens of different images does it here.

        Raises:
            UserError: if the images are too small for the reduction of keys and values.
        """
        if min(images.shape[-2:]) < self.smallest_side:
            raise UserError(
                f"images for this LVT must have sides of {self.smallest_side} pixels at least, but have "
                f"{images.shape[-2]} x {images.shape[-1]}: enlarge them or lower sr_ratios"
            )
        x, maps = images, []
        for stage, norm, mixed in zip(self.stages, self.out_norms, (mix, None, None, None), strict=True):
            x = stage(x, mixed)
            x = to_map(norm(to_tokens(x)), x.shape[-2:])
            maps.append(x)
        return tuple(maps)


def _init_weights(module: nn.Module) -> None:
    """Initialise weights as the released code does; a kernel's fan-out counts the outputs of one group."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
    elif isinstance(module, MLP) and module.dwconv is not None:
        for layer in (module.fc1, module.fc2):  # 1 x 1 convolutions upstream
            nn.init.normal_(layer.weight, std=(2 / layer.out_features) ** 0.5)
    elif isinstance(module, TapLinear):
        nn.init.normal_(module.weight, std=(2 / (TAPS * len(module.weight))) ** 0.5)
    elif isinstance(module, AtrousFilter):
        nn.init.kaiming_uniform_(module.weight)
    bias = getattr(module, "bias", None)
    if isinstance(bias, Tensor):
        nn.init.zeros_(bias)


class Stage(nn.Module):
    """Patch embedding and blocks."""

    def __init__(self, patch_embed: PatchEmbed, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.patch_embed = patch_embed
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, mix: Mix | None = None) -> Tensor:
        """Map (B, C', H', W') to (B, C, H, W); `mix` as in `LVT.forward`."""
        x = self.patch_embed(x)
        if mix is not None:
            x = mix(x, STRIDES[0])
        size, tokens = x.shape[-2:], to_tokens(x)
        for block in self.blocks:
            tokens = block(tokens, size)
        return to_map(tokens, size)


class Block(nn.Module):
    """Mixer and MLP, each on the normed tokens and added to them."""

    def __init__(self, dim: int, mixer: nn.Module, mlp: nn.Module, drop_path: float, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = mixer
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Map tokens (B, N, C) of a map of `size` (H, W) to (B, N, C)."""
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        result: Tensor = x + self.drop_path(self.mlp(self.norm2(x), size))
        return result


class MLP(nn.Module):
    """Linear, optional depthwise 3 x 3 convolution, GELU, linear, on tokens (B, N, C)."""

    def __init__(self, dim: int, hidden: int, depthwise: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden) if depthwise else None
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Map tokens (B, N, C) of a map of `size` (H, W) to (B, N, C)."""
        x = self.fc1(x)
        if self.dwconv is not None:
            x = to_tokens(self.dwconv(to_map(x, size)))
        result: Tensor = self.fc2(F.gelu(x))
        return result


@register(
    "lvt",
    choices={
        **choices_per_stage(embed_dim=Width, depth=Count, mlp_ratio=Ratio),
        "recursions": Count,
    },
    blocks=r"backbone\.stages\.(\d+)\.blocks\.(\d+)",
    roles={
        f"backbone.stages.*.blocks.*.{layer}": Role.ADAPTIVE
        for layer in ("attn.logits", "attn.values", "attn.q", "attn.kv", "attn.proj", "mlp.fc1", "mlp.fc2")
    },
    convert=convert,
    retired=RECOMPUTING,
)
def build(
    arch: Arch,
    *,
    kind: str,
    image_size: tuple[int, int],
    head_dim: Count = 32,
    mixers: Annotated[Sequence[Mixer], _FOUR] = ("csa", "rasa", "rasa", "rasa"),
    sr_ratios: Annotated[Sequence[Count], _FOUR] = (1, 4, 2, 1),
    mlp_depconv: Annotated[Sequence[bool], _FOUR] = (False, True, True, True),
    atrous_rates: Annotated[Sequence[Count], Field(min_length=1)] = (1, 3, 5),
    qkv_bias: bool = False,
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    norm_eps: Annotated[float, Field(gt=0)] = 1e-5,
    final_norm: bool | None = None,
    round_to: Count = 1,
) -> LVT:
    """Build the backbone of an arch for one kind of task: four maps, the last one normed for classification.

    `final_norm` says otherwise: false for heads that norm it themselves.

    The width of a head is fixed, so the number of heads of a stage follows from its channels, a multiple of that width.

    Raises:
        UserError: if the channels of a stage are not a multiple of `head_dim`.
    """
    dims = [multiple(dim, round_to) for dim in per_stage(arch, "embed_dim")]
    for stage, dim in enumerate(dims, 1):
        if dim % head_dim:
            raise UserError(f"embed_dim{stage} must be a multiple of head_dim {head_dim}, not {dim}: change the space")
    return LVT(
        embed_dims=dims,
        depths=per_stage(arch, "depth"),
        num_heads=[dim // head_dim for dim in dims],
        mlp_ratios=per_stage(arch, "mlp_ratio"),
        mixers=mixers,
        sr_ratios=sr_ratios,
        mlp_depconv=mlp_depconv,
        atrous_rates=atrous_rates,
        recursions=arch["recursions"],  # type: ignore[arg-type]
        qkv_bias=qkv_bias,
        drop_path=drop_path,
        final_norm=kind == "classification" if final_norm is None else final_norm,
        norm_eps=norm_eps,
        round_to=round_to,
    )


_LVT = {"embed_dims": (64, 64, 160, 256), "depths": (2,) * 4, "num_heads": (2, 2, 5, 8), "mlp_ratios": (4, 8, 4, 4)}


@publishes({"lvt": _LVT, "lvt_cls": {**_LVT, "class_blocks": 2}}, convert=convert)
def build_classifier(*, classes: int, class_blocks: int = 0, **sizes: Any) -> Classifier:
    """Build a classifier of the `sizes` that `LVT` takes.

    Without `class_blocks`: norm, mean and linear layer (`lvt`). With them: the head of the trained model (`lvt_cls`),
    that many blocks of class attention and the auxiliary layer; see `ClassAttentionHead` for what it returns.
    """
    backbone = LVT(**sizes)
    width, norm_eps = backbone.widths[-1], sizes.get("norm_eps", 1e-5)
    if not class_blocks:
        return Classifier(backbone, NormedMeanLinear(width, classes, norm_eps))
    head = ClassAttentionHead(
        width,
        classes,
        num_heads=sizes["num_heads"][-1],
        mlp_ratio=sizes["mlp_ratios"][-1],
        blocks=class_blocks,
        qkv_bias=sizes.get("qkv_bias", False),
        norm_eps=norm_eps,
    )
    return Classifier(backbone, head)
