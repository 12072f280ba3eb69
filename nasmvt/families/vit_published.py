"""timm's plain vision transformers by name."""

from collections.abc import Sequence
from typing import Any

from timm.layers import GELU, DropPath, LayerNorm, LayerScale, Mlp, PatchEmbed
from timm.models import vision_transformer
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor, nn

from nasmvt.families.layers import Classifier, MeanLinear
from nasmvt.families.published import reads
from nasmvt.families.timm_networks import check_layers, one_of, refused
from nasmvt.families.vit import ACTIVATIONS, ViT, convert


class DistilledLinear(nn.Module):
    """DeiT's classifier with distillation: the mean of what the class and the distillation token say."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, classes)
        self.fc_dist = nn.Linear(width, classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn a map of two cells (B, C, 1, 2) into logits (B, K)."""
        own, distilled = maps[-1][:, :, 0].unbind(2)
        logits: Tensor = (self.fc(own) + self.fc_dist(distilled)) / 2
        return logits


_LAYERS = {
    *(vision_transformer.VisionTransformer, VisionTransformerDistilled, vision_transformer.Block),
    *(
        vision_transformer.Attention,
        PatchEmbed,
        nn.Conv2d,
        nn.Linear,
        nn.LayerNorm,
        LayerNorm,
        LayerScale,
        Mlp,
        DropPath,
    ),
    *(GELU, *ACTIVATIONS.values()),
}


def _read(name: str, network: Any) -> dict[str, Any]:
    """Return the sizes of one of timm's networks."""
    check_layers(name, network, _LAYERS)
    blocks, patches = list(network.blocks), network.patch_embed
    class_tokens = int(network.has_class_token) + hasattr(network, "dist_token")
    for differs, what in (
        (network.global_pool != ("token" if class_tokens else "avg"), f"the pooling {network.global_pool!r}"),
        (network.pool_include_prefix, "a mean over register tokens too"),
        (network.pos_embed is None, "no positions"),
        (len(set(patches.patch_size)) > 1, "patches that are no squares"),
    ):
        if differs:
            raise refused(name, what)
    width = network.embed_dim
    acts = {cls: act for act, cls in ACTIVATIONS.items()} | {GELU: "gelu"}
    norms = (module.eps for module in network.modules() if isinstance(module, nn.LayerNorm))
    return {
        "image_size": patches.img_size,
        "embed_dim": width,
        "num_heads": tuple(block.attn.num_heads for block in blocks),
        "mlp_ratio": tuple(block.mlp.fc1.out_features / width for block in blocks),
        "head_dim": one_of(name, "channels of a head", (block.attn.head_dim for block in blocks)),
        "patch_size": patches.patch_size[0],
        "class_tokens": class_tokens,
        "register_tokens": network.num_reg_tokens,
        "prefix_positions": not network.no_embed_class,
        "qkv_bias": one_of(name, "biases of queries and keys", (block.attn.qkv.bias is not None for block in blocks)),
        "layer_scale": one_of(name, "layer scale", (1e-5 if hasattr(b.ls1, "gamma") else None for b in blocks)),
        "first_norm": not isinstance(network.norm_pre, nn.Identity),
        "norm_after_pooling": isinstance(network.norm, nn.Identity),
        "act": one_of(name, "activation", (acts[type(block.mlp.act)] for block in blocks)),
        "norm_eps": one_of(name, "epsilon", norms),
    }


@reads(vision_transformer.VisionTransformer, VisionTransformerDistilled, read=_read, convert=convert)
def build_classifier(*, classes: int, **sizes: Any) -> Classifier:
    """Build a published network."""
    backbone = ViT(**sizes)
    head = DistilledLinear if backbone.class_tokens == 2 else MeanLinear
    return Classifier(backbone, head(backbone.widths[-1], classes))
