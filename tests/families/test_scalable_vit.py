"""ScalableViT: parity with the reference, published sizes and checkpoints, any input size, the layout of its slices."""

import json
from math import prod

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nasmvt.errors import UserError
from nasmvt.families import family, published
from nasmvt.families.reference import check_fit, load_reference
from nasmvt.families.scalable_vit import ScalableViT, build_classifier, convert
from nasmvt.families.scalable_vit_attention import IWSA, SSA
from nasmvt.space import load_space
from nasmvt.supernet import Supernet, SupernetConfig
from nasmvt.supernet.lending import part
from tests.conftest import make_batch, randomize
from tests.families.reference import SHARED, load_vectors

SMALL = {
    "embed_dims": (16, 24, 32, 48),
    "depths": (2, 1, 3, 2),
    "num_heads": (2, 3, 4, 6),
    "c_ratios": (2, 1.25, 0.5, 1),
}


def network(**changes) -> ScalableViT:
    model = ScalableViT(**{**SMALL, **changes}).eval()
    randomize(model)
    return model


# -- parity -----------------------------------------------------------------------------------------


def sizes_of(config: dict) -> dict:
    names = ("embed_dims", "depths", "num_heads", "mlp_ratios", "c_ratios", "sr_ratios", "qkv_bias")
    return {name: config[name] for name in names} | {"window_sizes": config["wss"]}


def loaded() -> tuple[dict, dict, dict]:
    meta, tensors = load_vectors("scalablevit")
    return meta, tensors, {key[6:]: value for key, value in tensors.items() if key.startswith("state.")}


def worst(got, want) -> float:
    assert got.shape == want.shape
    return ((got - want).abs().max() / want.abs().max()).item()


def test_every_output_equals_the_reference():
    meta, tensors, state = loaded()
    model = build_classifier(classes=meta["config"]["num_classes"], **sizes_of(meta["config"])).eval()
    load_reference(model, state, convert)
    assert sum(p.numel() for p in model.parameters()) == meta["params"]
    dense = ScalableViT(**sizes_of(meta["config"]), final_norm=False).eval()
    dense.load_state_dict({k: v for k, v in model.backbone.state_dict().items() if not k.startswith("norm.")})
    compared = 0
    with torch.inference_mode():
        for height, width in meta["sizes"]:
            images = tensors[f"input.{height}x{width}"]
            outputs = {f"feat{stage}": m for stage, m in enumerate(dense(images), start=1)}
            outputs["logits"] = model(images)
            for name, got in outputs.items():
                key = f"{name}.{height}x{width}"
                if key in tensors:
                    assert worst(got, tensors[key]) <= 1e-5, key
                    compared += 1
    assert compared == sum(key.startswith(("feat", "logits")) for key in tensors)


def test_a_batch_of_two_equals_two_of_one():
    meta, _, state = loaded()
    model = build_classifier(classes=meta["config"]["num_classes"], **sizes_of(meta["config"])).eval()
    load_reference(model, state, convert)
    images = torch.randn(2, 3, 96, 160)
    with torch.inference_mode():
        assert worst(model(images), torch.cat([model(image[None]) for image in images])) <= 1e-5
        singles = zip(*(model.backbone(image[None]) for image in images), strict=True)
        for both, single in zip(model.backbone(images), singles, strict=True):
            assert worst(both, torch.cat(single)) <= 1e-5


def test_a_classifiers_checkpoint_serves_the_backbone_alone_with_and_without_its_norm():
    meta, tensors, state = loaded()
    sizes = sizes_of(meta["config"])
    headless = {key: value for key, value in state.items() if not key.startswith("head.")}
    for weights in (state, headless):
        normed = published("scalable_vit_small", classes=None, weights=weights, **sizes).eval()
        plain = published("scalable_vit_small", classes=None, weights=weights, final_norm=False, **sizes).eval()
        with torch.inference_mode():
            images = tensors["input.224x224"]
            last = plain(images)[-1]
            assert worst(last, tensors["feat4.224x224"]) <= 1e-5
            assert worst(normed(images)[-1], normed.norm(last.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)) <= 1e-5


def test_epsilon_of_every_norm():
    with torch.device("meta"):
        model = published("scalable_vit_small")
    norms = {name: m.eps for name, m in model.named_modules() if isinstance(m, nn.LayerNorm)}
    inside = {name for name in norms if name.endswith("attn.norm")}
    assert len(inside) == 12  # every second block of the stages with a spatial ratio above 1
    assert len(norms) == 12 + 2 * 26 + 4 + 2
    assert all(eps == (1e-5 if name in inside else 1e-6) for name, eps in norms.items())
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


# -- published networks -----------------------------------------------------------------------------

PUBLISHED = {  # released code: parameters, GMACs at 224 px with and without the products inside attention
    "small": (32_000_472, 4.265, 4.093),
    "small_0": (26_307_032, None, None),
    "base": (81_881_624, 8.801, 8.564),
    "large": (109_288_840, 14.988, 14.683),
}


@pytest.mark.parametrize("variant", PUBLISHED)
def test_published_sizes(variant):
    parameters, total, linear = PUBLISHED[variant]
    with torch.device("meta"):
        model = published(f"scalable_vit_{variant}")
        with FlopCounterMode(display=False) as counter:
            logits = model(torch.empty(1, 3, 224, 224))
    assert logits.shape == (1, 1000)
    assert sum(p.numel() for p in model.parameters()) == parameters
    if total is not None:
        products = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "bmm" in str(op))
        assert counter.get_total_flops() / 2e9 == pytest.approx(total, rel=0.01)
        assert (counter.get_total_flops() - products) / 2e9 == pytest.approx(linear, abs=0.0006)


def random_state(variant: str) -> dict[str, torch.Tensor]:
    path = SHARED / "parity" / f"keys_scalablevit_{variant}.json"
    if not path.is_file():
        pytest.skip(f"key list {path} is absent: set NASMVT_SHARED")
    shapes = json.loads(path.read_text())
    drawn = torch.rand(sum(map(prod, shapes.values()))).split(list(map(prod, shapes.values())))
    return {name: values.view(shape) for (name, shape), values in zip(shapes.items(), drawn, strict=True)}


@pytest.mark.parametrize("variant", ["small", "base", "large"])
def test_published_checkpoints_convert_strictly(variant):
    state = random_state(variant)
    with torch.device("meta"):
        model = published(f"scalable_vit_{variant}")
    tensors = convert(state, model)
    check_fit(tensors, model.state_dict(), "x")
    assert len(tensors) == len(state)
    values = [sum(t.sum(dtype=torch.double).item() for t in group.values()) for group in (tensors, state)]
    assert values[0] == pytest.approx(values[1])


@pytest.mark.parametrize("key", ["stages.0.0.attn.qkv.weight", "stages.0.1.attn.q.bias", "stages.3.1.attn.kv.weight"])
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(key):
    state = random_state("small")
    with torch.device("meta"):
        model = published("scalable_vit_small")
    ours = "backbone." + key.replace("0.0", "0.blocks.0").replace("0.1.", "0.blocks.1.").replace("3.1", "3.blocks.1")
    with pytest.raises(UserError, match=f"missing: {ours}"):
        load_reference(model, {k: v for k, v in state.items() if k != key}, convert)
    with pytest.raises(UserError, match=f"another shape: {ours}"):
        load_reference(model, {**state, key: state[key][:-1]}, convert)
    for surplus in ("stages.0.9.attn.qkv.weight", "stages.0.0.attn.lim.weight", "something"):
        with pytest.raises(UserError, match=r"surplus: (backbone\.)?" + surplus.replace("0.9", "0.blocks.9")):
            load_reference(model, {**state, surplus: torch.zeros(3)}, convert)


def test_the_plain_head_of_the_first_version():
    model = published("scalable_vit_small_0", classes=5, **{**SMALL, "embed_dims": (8, 12, 16, 24)}).eval()
    assert model.head.fc.weight.shape == (5, 24)
    assert convert({"head.weight": torch.zeros(5, 24)}, model).keys() == {"head.fc.weight"}
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 5)
    with torch.device("meta"):
        last = published("scalable_vit_small_0").backbone.stages[3].blocks[1].attn
    assert last.scale == pytest.approx(40**-0.5)
    assert last.q.weight.shape == (16, 32, 512)


# -- the plain network ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (40, 56), (33, 127), (224, 32), (5, 3), (1, 1)])
def test_any_input_size(size):
    model = network()
    maps = model(torch.rand(1, 3, *size))
    for m, width, stride in zip(maps, model.widths, model.strides, strict=True):
        assert m.shape == (1, width, -(-size[0] // stride), -(-size[1] // stride))
        assert m.isfinite().all()


@pytest.mark.parametrize("size", [(9, 12), (7, 5), (14, 14)])
def test_windows_of_a_padded_map(size):
    dim, heads, side = 12, 3, 7
    layer = IWSA(dim, heads, 4, side, True)
    randomize(layer)
    x = torch.randn(2, *size, dim)
    rows, columns = (-(-n // side) for n in size)
    padded = torch.zeros(2, rows * side, columns * side, dim)
    padded[:, : size[0], : size[1]] = x
    q, k, v = layer.qkv(padded).unflatten(-1, (heads, 3, 4)).unbind(4)
    want = torch.zeros_like(padded)
    for top in range(0, rows * side, side):
        for left in range(0, columns * side, side):
            here = (slice(None), slice(top, top + side), slice(left, left + side))
            for head in range(heads):
                scores = q[here][..., head, :].flatten(1, 2) @ k[here][..., head, :].flatten(1, 2).mT / 2
                values = scores.softmax(-1) @ v[here][..., head, :].flatten(1, 2)
                want[here][..., head * 4 : head * 4 + 4] = values.unflatten(1, (side, side))
    v_map = v.flatten(3)[:, : size[0], : size[1]].permute(0, 3, 1, 2)
    want = layer.proj(want[:, : size[0], : size[1]] + layer.lim(v_map).permute(0, 2, 3, 1))
    torch.testing.assert_close(layer(x), want)


def test_keys_of_a_padded_map():
    layer = SSA(8, 2, 4, 4, 1.5, True)
    randomize(layer)
    x = torch.randn(2, 6, 3, 8)
    padded = F.pad(x, (0, 0, 0, 1, 0, 2))
    torch.testing.assert_close(layer(x), layer(padded)[:, :6, :3])


def test_kinds_of_attention_alternate():
    model = network(window_sizes=(7, 1, 7, 7), depths=(3, 2, 1, 2))
    kinds = [[type(block.attn) for block in stage.blocks] for stage in model.stages]
    assert kinds == [[IWSA, SSA, IWSA], [SSA, SSA], [IWSA], [IWSA, SSA]]


def test_sizes_of_a_stage():
    model = network(mlp_ratios=(1, 2.5, 3, 4), head_dim=8, num_heads=(1, 2, 3, 5), qkv_bias=False)
    assert [stage.blocks[0].mlp.fc1.out_features for stage in model.stages] == [16, 60, 96, 192]
    assert [stage.blocks[0].attn.proj.in_features for stage in model.stages] == [8, 16, 24, 40]
    biased = {name.split(".", 4)[4] for name, _ in model.named_parameters() if "attn" in name and "bias" in name}
    assert biased == {f"attn.{layer}.bias" for layer in ("lim", "pool", "reduce", "norm", "proj")}
    assert [m.shape[1] for m in model(torch.rand(1, 3, 32, 32))] == [16, 24, 32, 48]


def test_the_last_map_is_normed_for_classification_alone():
    space = load_space("scalable_vit_nano")
    for kind in ("classification", "detection", "segmentation"):
        model = family("scalable_vit").build(space.smallest, kind=kind, image_size=(64, 64), **space.fixed)
        assert isinstance(model.norm, nn.LayerNorm) == (kind == "classification")
        assert len(model(torch.rand(1, 3, 64, 64))) == 4


def test_drop_path_rises_over_all_blocks():
    model = network(drop_path=0.7)
    rates = [block.drop_path.drop_prob for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.1 * n for n in range(8)])


def test_initialisation():
    torch.manual_seed(0)
    model = ScalableViT(**{**SMALL, "embed_dims": (32, 48, 64, 96)})
    attn = model.stages[0].blocks[1].attn
    assert attn.q.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert attn.reduce.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.1)
    assert attn.pool.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.1)
    assert model.stages[3].patch_embed.weight.std().item() == pytest.approx((2 / (9 * 96)) ** 0.5, rel=0.1)
    assert all(p.abs().sum() == 0 for name, p in model.named_parameters() if name.endswith("bias"))


def test_no_weight_decay():
    names = network().no_weight_decay()
    assert {f"stages.{stage}.pos_conv.weight" for stage in range(4)} <= names
    assert {name.split(".", 2)[2] for name in names} == {
        "pos_conv.weight",
        "blocks.1.attn.q.bias",
        "blocks.1.attn.k.bias",
    }


def test_sizes_that_make_no_network_are_refused():
    with pytest.raises(UserError, match="once per stage, but got strides 4"):
        network(depths=(1, 1, 1))
    with pytest.raises(UserError, match="16 is none of 3"):
        network(num_heads=(3, 3, 4, 6))
    with pytest.raises(UserError, match=r"0\.1 of 16 channels is too little for 2 heads"):
        network(c_ratios=(0.1, 1, 1, 1))


# -- leading slices ---------------------------------------------------------------------------------


def sliced(big: nn.Module, small: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            parameter.copy_(part(big.get_parameter(name), parameter.shape))
    return small


def test_a_slice_of_windowed_attention_has_the_first_heads_and_channels():
    big = IWSA(24, 3, 8, 4, True)
    randomize(big)
    small = sliced(big, IWSA(20, 2, 8, 4, True))
    x = torch.randn(1, 8, 4, 20)
    with torch.no_grad():
        big.proj.weight[:, 16:] = 0  # the third head has no say
    torch.testing.assert_close(small(x), big(F.pad(x, (0, 4)))[..., :20])


def test_a_slice_of_attention_to_the_map_has_the_first_heads_and_channels():
    big = SSA(24, 3, 8, 1, 1, True)
    randomize(big)
    small = sliced(big, SSA(20, 2, 8, 1, 1, True))
    x = torch.randn(1, 5, 3, 20)
    with torch.no_grad():
        big.proj.weight[:, 16:] = 0
    torch.testing.assert_close(small(x), big(F.pad(x, (0, 4)))[..., :20])


def test_a_slice_of_scaled_attention_has_the_first_heads_and_the_first_channels_of_each():
    big = SSA(24, 3, 8, 2, 2, True)
    randomize(big)
    dim, heads, c_ratio = 20, 2, 1.25
    small = sliced(big, SSA(dim, heads, 8, 2, c_ratio, True))
    keys = 10  # channels of a head, of 16
    x = torch.randn(1, 4, 6, dim)
    reduced = F.conv2d(x.permute(0, 3, 1, 2), big.pool.weight[:dim], big.pool.bias[:dim], stride=2, groups=dim)
    reduced = torch.einsum("bchw,kc->bhwk", reduced, big.reduce.weight[: heads * keys, :dim, 0, 0])
    reduced = reduced + big.reduce.bias[: heads * keys]
    reduced = F.layer_norm(reduced, (heads * keys,), big.norm.weight[: heads * keys], big.norm.bias[: heads * keys])
    reduced = F.gelu(reduced).flatten(1, 2)
    outputs = []
    for head in range(heads):
        q = x.flatten(1, 2) @ big.q.weight[head, :keys, :dim].T + big.q.bias[head, :keys]
        k = reduced @ big.k.weight[head, :keys, : heads * keys].T + big.k.bias[head, :keys]
        rows = slice(head * 8, head * 8 + 8)
        v = reduced @ big.v.weight[rows, : heads * keys].T + big.v.bias[rows]
        outputs.append((q @ k.mT * (8 * c_ratio) ** -0.5).softmax(-1) @ v)
    want = torch.cat(outputs, -1) @ big.proj.weight[:dim, :16].T + big.proj.bias[:dim]
    torch.testing.assert_close(small(x), want.view(x.shape))


# -- spaces -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scalable_vit_small", "scalable_vit_nano"])
def test_spaces_fit_the_family(name):
    family("scalable_vit").check(load_space(name))


def test_the_published_arch_is_the_published_backbone():
    space = load_space("scalable_vit_small")
    with torch.device("meta"):
        theirs = published("scalable_vit_small", classes=None)
        ours = family("scalable_vit").build(
            space.named("published"), kind="classification", image_size=(224, 224), **space.fixed
        )
    shapes = [{name: p.shape for name, p in model.named_parameters()} for model in (ours, theirs)]
    assert shapes[0] == shapes[1]
    scales = [[m.scale for m in model.modules() if isinstance(m, SSA)] for model in (ours, theirs)]
    assert scales[0] == scales[1]


def test_linear_layers_of_attention_and_mlp_are_adaptive():
    space = load_space("scalable_vit_nano")
    model = family("scalable_vit").build(space.largest, kind="segmentation", image_size=(64, 64), **space.fixed)
    roles = family("scalable_vit").roles
    layers = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    adaptive = {name.rpartition(".")[2] for name in layers if roles(f"backbone.{name}") == "adaptive"}
    assert adaptive == {"qkv", "q", "k", "v", "kv", "proj", "fc1", "fc2"}


def test_a_training_step_reaches_the_store(tasks):
    space = load_space("scalable_vit_nano")
    supernet = Supernet(space, tasks, SupernetConfig(score_start=0))
    for task in tasks:
        losses = supernet.subnet(space.smallest, task).train().loss(*make_batch(tasks[task].config.kind))
        sum(losses.values()).backward()
        stage = supernet.networks[task].backbone.stages[0]
        head = stage.blocks[0].attn.qkv.weight.grad
        assert head[:48, :16].abs().sum() > 0
        assert head[48:].abs().sum() == head[:, 16:].abs().sum() == 0
