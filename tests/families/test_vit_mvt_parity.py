"""With the reference's weights our plain network computes what the reference computed."""

from functools import partial

import pytest
import torch

from nasmvt.families import ViTMVT
from nasmvt.families.reference import load_reference
from nasmvt.families.vit_mvt_reference import NORM_EPS, convert, position_side
from tests.families.reference import load_vectors

BOUND = 1e-5


@pytest.mark.parametrize("qkv", ["specific", "reference"])
@pytest.mark.parametrize("task", ["cls", "det", "seg"])
def test_outputs_and_every_block_equal_the_reference(task, qkv):
    meta, tensors = load_vectors(f"vit_mvt_{task}")
    subnet, size = meta["subnet"], meta["backbone_kwargs"]["img_size"]
    blocks = range(subnet["depth.0"])
    state = {key.removeprefix("backbone."): value for key, value in tensors.items() if key.startswith("backbone.")}
    assert 16 * position_side(state) == size
    model = ViTMVT(
        image_size=(size, size),
        embed_dim=subnet["embed_channels.0"],
        num_heads=[subnet[f"num_heads.{i}"] for i in blocks],
        mlp_ratio=[subnet[f"mlp_ratio.{i}"] for i in blocks],
        window_size=14 if task == "det" else None,
        conv_blocks=sorted({int(k.split(".")[2]) for k in tensors if "cnn_aggregation" in k}),
        out_blocks=meta["backbone_kwargs"].get("out_indices", [blocks[-1]]),
        norm_eps=NORM_EPS,
    )
    load_reference(model, state, partial(convert, qkv=qkv))
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert norms
    assert all(norm.eps == 1e-5 == meta["layernorm_eps"] for norm in norms)

    seen = {}
    model.blocks[0].register_forward_pre_hook(lambda m, args: seen.update({"inter.tokens": args[0]}))
    for i, block in enumerate(model.blocks):
        module = model.stage_convs[model.conv_blocks.index(i)] if i in model.conv_blocks else block
        module.register_forward_hook(lambda m, args, out, i=i: seen.update({f"inter.block{i}": out}))
    with torch.inference_mode():
        maps = model(tensors["input"])
        recorded = dict(seen)
        pair = model(torch.cat([tensors["input"], tensors["input"].flip(3)]))
        single = [model(image[None]) for image in (*tensors["input"], *tensors["input"].flip(3))]

    def worst(got, want):
        return ((got - want).abs().max() / want.abs().max()).item()

    errors = {}
    prefix = "output" if qkv == "reference" else "output_qkvfix"
    for number, got in enumerate(maps):
        want = tensors[f"{prefix}.{number}"]
        errors[f"{prefix}.{number}"] = worst(got.mean((2, 3)) if task == "cls" else got, want)
        errors[f"batch of two, {number}"] = worst(torch.cat([s[number] for s in single]), pair[number])
    if qkv == "reference":  # the intermediates were recorded with the reference's behaviour
        assert len(recorded) == len(blocks) + 1
        for key, got in recorded.items():
            errors[key] = worst(got.flatten(2).transpose(1, 2), tensors[key])
    assert max(errors.values()) <= BOUND, errors


def test_the_two_readings_differ_in_qkv_alone():
    meta, tensors = load_vectors("vit_mvt_cls")
    state = {key.removeprefix("backbone."): value for key, value in tensors.items() if key.startswith("backbone.")}
    subnet = meta["subnet"]
    blocks = range(subnet["depth.0"])
    model = ViTMVT(
        image_size=(64, 64),
        embed_dim=subnet["embed_channels.0"],
        num_heads=[subnet[f"num_heads.{i}"] for i in blocks],
        mlp_ratio=[subnet[f"mlp_ratio.{i}"] for i in blocks],
        out_blocks=[blocks[-1]],
    )
    honoured, published = convert(state, model), convert(state, model, qkv="reference")
    unlike = {name for name in honoured if not torch.equal(honoured[name], published[name])}
    assert unlike == {
        f"blocks.{i}.attn.qkv.weight" for i in blocks if meta["scores"][f"backbone.layers.{i}.attn.qkv.score"] <= 0.5
    }
    assert unlike
