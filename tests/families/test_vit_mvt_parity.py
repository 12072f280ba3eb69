"""With the reference's weights our plain network computes what the reference computed."""

import pytest
import torch

from nasmvt.families import ViTMVT
from tests.families.reference import load_vectors

RENAMES = {
    "cnn_pre.": "stem.",
    "patch_embed.proj": "patch_embed",
    "layers.": "blocks.",
    ".dw_init.dwconv": ".lpu",
    ".dw.dwconv": ".dwconv",
    ".ln1": ".norm1",
    ".ln2": ".norm2",
    ".se.conv1.conv": ".se.fc1",
    ".se.conv2.conv": ".se.fc2",
    "relative_position_bias_table": "relative_bias",
}


def converted(tensors: dict, meta: dict, model: ViTMVT, *, reference_qkv: bool) -> dict:
    scores = meta["scores"]
    heads = [block.attn.num_heads for block in model.blocks]
    state = {}
    for key, value in tensors.items():
        if not key.startswith("backbone.") or "specific" in key or "score" in key or "index" in key:
            continue
        layer, _, leaf = key.rpartition(".")
        specific = scores.get(f"{layer}.score", 1.0) <= 0.5
        if specific and not (reference_qkv and layer.endswith("qkv") and leaf == "weight"):
            value = tensors[f"{layer}.specific_{leaf}"]
        name = key.removeprefix("backbone.")
        if name == "pos_embed.cls_token":
            side = int(value.shape[1] ** 0.5)
            state["pos_embed"] = value.transpose(1, 2).reshape(1, -1, side, side)
            continue
        if name.startswith("ln1."):
            state["norm." + leaf] = value
            continue
        for old, new in RENAMES.items():
            name = name.replace(old, new)
        if "cnn_aggregation" in name:
            block = int(name.split(".")[1])
            name = name.replace(f"blocks.{block}.cnn_aggregation", f"stage_convs.{model.conv_blocks.index(block)}")
        if "attn" in name:
            block = int(name.split(".")[1])
            if "relative_bias" in name:
                value = value[:, : heads[block]]
            elif "qkv" in name:
                # weight rows: (head * width, q/k/v) -> (head, q/k/v, width); bias: (q/k/v, head, width)
                rest = value.shape[1:]
                if leaf == "weight":
                    value = value.reshape(heads[block], 64, 3, *rest).transpose(1, 2).reshape(-1, *rest)
                else:
                    value = value.reshape(3, heads[block], 64).transpose(0, 1).reshape(-1)
        state[name] = value
    return state


@pytest.mark.parametrize("reference_qkv", [False, True])
@pytest.mark.parametrize("task", ["cls", "det", "seg"])
def test_outputs_and_every_block_equal_the_reference(task, reference_qkv):
    meta, tensors = load_vectors(f"vit_mvt_{task}")
    subnet, size = meta["subnet"], meta["backbone_kwargs"]["img_size"]
    blocks = range(subnet["depth.0"])
    model = ViTMVT(
        image_size=(size, size),
        embed_dim=subnet["embed_channels.0"],
        num_heads=[subnet[f"num_heads.{i}"] for i in blocks],
        mlp_ratio=[subnet[f"mlp_ratio.{i}"] for i in blocks],
        window_size=14 if task == "det" else None,
        conv_blocks=sorted({int(k.split(".")[2]) for k in tensors if "cnn_aggregation" in k}),
        out_blocks=meta["backbone_kwargs"].get("out_indices", [blocks[-1]]),
        norm_eps=meta["layernorm_eps"],
    )
    model.load_state_dict(converted(tensors, meta, model, reference_qkv=reference_qkv), strict=True)
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert norms
    assert all(norm.eps == 1e-5 for norm in norms)

    seen = {}
    model.blocks[0].register_forward_pre_hook(lambda m, args: seen.update({"inter.tokens": args[0]}))
    for i, block in enumerate(model.blocks):
        module = model.stage_convs[model.conv_blocks.index(i)] if i in model.conv_blocks else block
        module.register_forward_hook(lambda m, args, out, i=i: seen.update({f"inter.block{i}": out}))
    with torch.inference_mode():
        maps = model(tensors["input"])
        recorded = dict(seen)
        single = [model(image[None]) for image in tensors["input"]]

    def worst(got, want):
        return ((got - want).abs().max() / want.abs().max()).item()

    prefix = "output" if reference_qkv else "output_qkvfix"
    for number, got in enumerate(maps):
        want = tensors[f"{prefix}.{number}"]
        assert worst(got.mean((2, 3)) if task == "cls" else got, want) <= 1e-5
        assert worst(torch.cat([s[number] for s in single]), got) <= 1e-5
    if reference_qkv:  # the intermediates were recorded with the reference's behaviour
        assert len(recorded) == len(blocks) + 1
        for key, got in recorded.items():
            assert worst(got.flatten(2).transpose(1, 2), tensors[key]) <= 1e-5
