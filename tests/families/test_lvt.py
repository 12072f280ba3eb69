"""LVT: equal to the reference, its published sizes and keys, and its slices."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nasmvt.errors import UserError
from nasmvt.families import family, published
from nasmvt.families.lvt import LVT, STRIDES, Block, build_classifier
from nasmvt.families.lvt_attention import CSA, RASA, AtrousFilter, TapLinear
from nasmvt.families.lvt_head import ClassAttention, convert
from nasmvt.families.reference import load_reference
from nasmvt.space import Role, load_space
from nasmvt.supernet import Supernet, SupernetConfig
from tests.conftest import make_batch, make_tasks, randomize
from tests.families.reference import SHARED, load_vectors

CLASSIFIER_ONLY = ("cls_token", "post_network.", "aux_head.")
SIZES = {"embed_dims": (8, 8, 16, 16), "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 2), "mlp_ratios": (2, 2, 1.5, 2)}


def network(**changes) -> LVT:
    model = LVT(**{**SIZES, **changes}).eval()
    randomize(model)
    return model


def sizes_of(config: dict) -> dict:
    return {
        "embed_dims": config["embed_dims"],
        "depths": config["layers"],
        "num_heads": config["num_heads"],
        "mlp_ratios": config["mlp_ratios"],
        "mixers": config["sa_layers"],
        "sr_ratios": config["sr_ratios"],
        "mlp_depconv": config["mlp_depconv"],
        "atrous_rates": config["rasa_cfg"]["atrous_rates"],
        "recursions": config["rasa_cfg"]["r_num"],
        "qkv_bias": config["qkv_bias"],
    }


def worst(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got - want).abs().max() / want.abs().max()).item()


# -- the reference -----------------------------------------------------------------------------------


def test_outputs_equal_the_reference():
    meta, tensors = load_vectors("lvt")
    config = meta["config"]
    state = {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
    plain_state = {key: value for key, value in state.items() if not key.startswith(CLASSIFIER_ONLY)}
    sizes = {"classes": config["num_classes"], **sizes_of(config)}
    model = build_classifier(class_blocks=len(config["post_layers"]), **sizes).eval()
    plain = build_classifier(**sizes).eval()
    load_reference(model, state, convert)
    load_reference(plain, plain_state, convert)
    assert sum(p.numel() for p in model.parameters()) == meta["params"]
    for module in (*model.modules(), *plain.modules()):
        assert not isinstance(module, nn.BatchNorm2d)
        assert not isinstance(module, nn.LayerNorm) or module.eps == 1e-5

    for height, width in meta["sizes"]:
        size = f"{height}x{width}"
        images = tensors[f"input.{size}"]
        with torch.inference_mode():
            maps = model.backbone(images)
            got = {"logits": model(images), "logits_plain": plain(images)}
            got |= {f"feat{stage}": m for stage, m in enumerate(maps, 1)}
            other = torch.randn(images.shape)
            pair = torch.cat((images, other))
            both = [model(pair), *model.backbone(pair)]
            singles = [[model(one), *model.backbone(one)] for one in (images, other)]
        for name, value in got.items():
            assert worst(value, tensors[f"{name}.{size}"]) <= 1e-5, (name, size)
        for value, *one in zip(both, *singles, strict=True):
            assert worst(value, torch.cat(one)) <= 1e-5


MEASURES = {  # parameters, giga multiply-adds at 224 px
    ("lvt", None): (3_429_092, 0.8615),
    ("lvt", 1000): (3_686_604, 0.8618),
    ("lvt_cls", 1000): (5_521_844, 0.8888),
}


@pytest.mark.parametrize(("name", "classes"), MEASURES)
def test_published_sizes(name, classes):
    with torch.device("meta"):
        model = published(name, classes=classes).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 224, 224))
    parameters, gmacs = MEASURES[name, classes]
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=1e-3)


def published_state(name: str) -> dict[str, torch.Tensor]:
    path = SHARED / "parity" / f"keys_{name}.json"
    if not path.is_file():
        pytest.skip(f"published keys {path} are absent: set NASMVT_SHARED")
    return {key: torch.rand(shape) for key, shape in json.loads(path.read_text()).items()}


@pytest.mark.parametrize("name", ["lvt", "lvt_cls"])
def test_published_keys_load_strictly(name):
    state = published_state(name)
    model = published(name, weights=state)
    assert torch.equal(model.head.fc.weight, state["head.weight"])
    fc1 = model.backbone.stages[2].blocks[1].mlp.fc1.weight
    assert torch.equal(fc1, state["backbone.2.1.1.mlp.fc1.weight"][..., 0, 0])

    missing, surplus, misshapen, misrowed = (dict(state) for _ in range(4))
    del missing["backbone.1.1.0.attn.ds.weight"]
    surplus |= {"backbone.1.1.0.attn.more.weight": torch.rand(3), "box.bias": torch.rand(2)}
    misshapen["backbone.3.1.0.attn.kv.weight"] = torch.rand(513, 256)
    misrowed["backbone.0.1.1.attn.weight.weight"] = torch.rand(575, 64, 1, 1)
    for broken, message in (
        (missing, r"missing: backbone\.stages\.1\.blocks\.0\.attn\.atrous\.weight: check"),
        (surplus, r"surplus: backbone\.stages\.1\.blocks\.0\.attn\.more\.weight, box\.bias: check"),
        (misshapen, r"another shape: backbone\.stages\.3\.blocks\.0\.attn\.kv\.weight \(513, 256\) instead"),
        (misrowed, r"another shape: backbone\.stages\.0\.blocks\.1\.attn\.values\.weight \(575, 64\) instead"),
    ):
        with pytest.raises(UserError, match=message):
            published(name, weights=broken)


def test_a_checkpoint_of_the_other_classifier_is_refused():
    with pytest.raises(UserError, match=r"missing: .*head\.cls_token"):
        published("lvt_cls", weights=published_state("lvt"))
    with pytest.raises(UserError, match=r"surplus: .*head\.cls_token"):
        published("lvt", weights=published_state("lvt_cls"))


def test_backbones_load_alone():
    state = published_state("lvt_cls")
    dense = {key: value for key, value in state.items() if key.startswith("backbone.")}
    assert len(dense) == 148
    norms = {
        f"downstream_norms.{stage}.{leaf}": torch.rand(width)
        for stage, width in enumerate((64, 64, 160, 256))
        for leaf in ("weight", "bias")
    }
    images = torch.rand(1, 3, 32, 32)
    raw = published("lvt", classes=None, weights=dense).eval()(images)
    for got, want in zip(published("lvt_cls", classes=None, weights=state).eval()(images), raw, strict=True):
        assert torch.equal(got, want)

    normed = published("lvt", classes=None, out_norms=True, weights=dense | norms).eval()
    assert sum(p.numel() for p in normed.parameters()) == 3_430_180
    maps, x = normed(images), images
    for number, (stage, got) in enumerate(zip(normed.stages, maps, strict=True)):
        weight, bias = norms[f"downstream_norms.{number}.weight"], norms[f"downstream_norms.{number}.bias"]
        want = F.layer_norm(stage(x).permute(0, 2, 3, 1), weight.shape, weight, bias).permute(0, 3, 1, 2)
        assert worst(got, want) <= 1e-5
        x = got  # the next stage reads the normed map

    final = published("lvt", classes=None, final_norm=True, weights=state).eval()
    assert torch.equal(final.out_norms[3].weight, state["norm.weight"])
    *others, last = final(images)
    assert all(torch.equal(got, want) for got, want in zip(others, raw, strict=False))
    assert not torch.equal(last, raw[3])


# -- the parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(7, 5), (4, 6)])
def test_csa_as_specified_from_published_tensors_with_bias(size):
    c, heads, (height, width) = 8, 2, size
    prefix = "backbone.0.1.0.attn"
    model = network(embed_dims=(c, 8, 16, 16), num_heads=(heads, 2, 2, 2), qkv_bias=True)
    weight, bias = torch.rand(9 * c, c, 1, 1) - 0.5, torch.rand(9 * c)
    converted = convert({f"{prefix}.weight.weight": weight, f"{prefix}.weight.bias": bias}, classifier_of(model))
    csa = model.stages[0].blocks[0].attn
    for leaf in ("weight", "bias"):
        getattr(csa.values, leaf).data = converted[f"backbone.stages.0.blocks.0.attn.values.{leaf}"]
    x = torch.rand(1, height * width, c)
    grid = x.view(height, width, c)

    out = torch.zeros(height, width, c)
    for row in range(-(-height // 2)):
        for column in range(-(-width // 2)):
            pooled = grid[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean((0, 1))
            weights = (csa.logits(pooled).view(heads, 9, 9) * (c // heads) ** -0.5).softmax(-1)
            places = [(2 * row + tap // 3 - 1, 2 * column + tap % 3 - 1) for tap in range(9)]
            inside = [0 <= i < height and 0 <= j < width for i, j in places]
            pixels = [grid[p] if ok else torch.zeros(c) for p, ok in zip(places, inside, strict=True)]
            rows = weight.view(9, c, c)
            values = torch.stack([rows[t] @ u + bias.view(9, c)[t] for t, u in enumerate(pixels)])
            y = torch.einsum("hij,jhc->ihc", weights, values.view(9, heads, -1)).reshape(9, c)
            for tap in range(9):
                if inside[tap]:
                    out[places[tap]] += y[tap]
    torch.testing.assert_close(csa(x, size)[0], csa.proj(out.view(-1, c)), rtol=1e-5, atol=1e-6)


def classifier_of(backbone: nn.Module) -> nn.Module:
    return nn.ModuleDict({"backbone": backbone})


def test_keys_and_values_with_bias_are_reordered():
    model = network(num_heads=(1, 1, 4, 1), qkv_bias=True)
    weight, bias = torch.rand(32, 16), torch.rand(32)
    prefix, ours = "backbone.2.1.1.attn.kv", "backbone.stages.2.blocks.1.attn.kv"
    converted = convert({f"{prefix}.weight": weight, f"{prefix}.bias": bias}, classifier_of(model))
    layer = model.stages[2].blocks[1].attn.kv
    layer.weight.data, layer.bias.data = converted[f"{ours}.weight"], converted[f"{ours}.bias"]
    x = torch.rand(1, 5, 16)
    k, v = F.linear(x, weight, bias).chunk(2, -1)
    for got, want in zip(layer.heads(x), (k, v), strict=True):
        torch.testing.assert_close(got.transpose(1, 2).flatten(2), want)


def test_atrous_filter_uses_one_kernel_at_every_dilation():
    layer = AtrousFilter(1, (1, 3))
    layer.weight.data = torch.arange(1.0, 10).view(1, 1, 3, 3)
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 4] = 1
    expected = torch.zeros(9, 9)
    for rate in (1, 3):
        for tap in range(9):
            place = 4 - rate * (tap // 3 - 1), 4 - rate * (tap % 3 - 1)
            expected[place] += F.silu(layer.weight.data.flatten()[tap])
    torch.testing.assert_close(layer(x)[0, 0], expected)


def test_recursions_add_the_previous_input():
    def rasa(recursions: int) -> RASA:
        layer = RASA(16, 2, 2, (1, 3), recursions, False, 1e-5)
        randomize(layer)
        return layer

    once, x, size = rasa(1), torch.rand(1, 12, 16), (3, 4)
    second = x + F.silu(once(x, size))
    third = second + F.silu(once(second, size))
    assert torch.equal(rasa(2)(x, size), F.silu(once(second, size)))
    assert torch.equal(rasa(3)(x, size), F.silu(once(third, size)))


def test_class_attention_returns_both_logits_in_training():
    model = build_classifier(classes=5, class_blocks=1, **SIZES)
    randomize(model)
    images = torch.rand(2, 3, 64, 96)
    logits, aux = model.train()(images)
    assert logits.shape == (2, 5)
    assert aux.shape == (2, 2 * 3, 5)
    assert torch.equal(model.eval()(images), logits + 0.5 * aux.max(1).values)


@pytest.mark.parametrize("size", [(64, 64), (40, 56), (45, 71), (25, 25), (33, 130)])
@pytest.mark.parametrize("mixers", [("csa", "rasa", "rasa", "rasa"), ("rasa", "csa", "csa", "rasa")])
def test_any_input_size(size, mixers):
    model = network(mixers=mixers, sr_ratios=(2, 4, 2, 1))
    maps = model(torch.rand(2, 3, *size))
    assert model.strides == STRIDES
    assert model.widths == SIZES["embed_dims"]
    for stride, width, m in zip(STRIDES, model.widths, maps, strict=True):
        assert m.shape == (2, width, -(-size[0] // stride), -(-size[1] // stride))


def test_what_cannot_be_built_or_run_is_refused():
    model = network()
    with pytest.raises(UserError, match="sides of 25 pixels at least, but have 64 x 24"):
        model(torch.rand(1, 3, 64, 24))
    assert network(mixers=("csa", "csa", "rasa", "rasa")).smallest_side == 17
    with pytest.raises(UserError, match="channels of stage 2, but 3 do not divide 8"):
        network(num_heads=(1, 3, 2, 2))
    nano = load_space("lvt_nano")
    with pytest.raises(UserError, match="embed_dim2 must be a multiple of head_dim 16, not 24"):
        family("lvt").build(nano.smallest, kind="detection", image_size=(64, 64), **{**nano.fixed, "head_dim": 16})


def test_drop_path_grows_over_all_blocks():
    model = network(drop_path=0.2)
    rates = [m.drop_path.drop_prob for m in model.modules() if isinstance(m, Block)]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_weights_are_drawn_as_in_the_released_code():
    model = LVT(embed_dims=(64, 64, 64, 64), depths=(1,) * 4, num_heads=(2,) * 4, mlp_ratios=(4,) * 4)
    csa, rasa = model.stages[0].blocks[0], model.stages[1].blocks[0]
    expected = {
        model.stages[0].patch_embed.proj: (2 / (49 * 64)) ** 0.5,
        rasa.attn.reduce.proj: (2 / (16 * 64)) ** 0.5,
        rasa.mlp.dwconv: (2 / 9) ** 0.5,
        rasa.mlp.fc1: (2 / 256) ** 0.5,
        rasa.mlp.fc2: (2 / 64) ** 0.5,
        rasa.attn.atrous: (6 / 9 / 3) ** 0.5,
        rasa.attn.q: 0.02,
        csa.mlp.fc1: 0.02,
        csa.attn.logits: 0.02,
        csa.attn.values: (2 / (9 * 64)) ** 0.5,
    }
    for layer, std in expected.items():
        assert layer.weight.std().item() == pytest.approx(std, rel=0.1)
    assert all(not p.any() for name, p in model.named_parameters() if name.endswith("bias"))


# -- slices ------------------------------------------------------------------------------------------


def test_leading_slices_are_the_first_heads():
    """With inputs in the first channels alone, and the last head out of the projection, big and small agree."""
    x, size = torch.rand(2, 12, 24), (3, 4)
    x[..., 16:] = 0
    pairs = [
        (CSA(24, 3, True), CSA(16, 2, True)),
        (RASA(24, 3, 1, (1, 3), 1, True, 1e-5), RASA(16, 2, 1, (1, 3), 1, True, 1e-5)),
        (ClassAttention(24, 3, True), ClassAttention(16, 2, True)),
    ]
    for big, small in pairs:
        randomize(big)
        big.proj.weight.data[:, 16:] = 0
        stored = dict(big.named_parameters())
        for name, parameter in small.named_parameters():
            parameter.data = stored[name][tuple(slice(n) for n in parameter.shape)]
        arguments = () if isinstance(big, ClassAttention) else (size,)
        got, want = small(x[..., :16], *arguments), big(x, *arguments)[..., :16]
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


# -- the spaces --------------------------------------------------------------------------------------


def test_the_published_network_lies_in_the_small_space():
    space = load_space("lvt_small")
    with torch.device("meta"):
        model = family("lvt").build(space.named("published"), kind="segmentation", image_size=(224, 224), **space.fixed)
        wanted = published("lvt", classes=None)
        normed = family("lvt").build(
            space.named("published"), kind="classification", image_size=(224, 224), **space.fixed
        )
    shapes = {name: p.shape for name, p in model.named_parameters()}
    assert shapes == {name: p.shape for name, p in wanted.named_parameters()}
    norm = {"out_norms.3.weight": (256,), "out_norms.3.bias": (256,)}
    assert {name: p.shape for name, p in normed.named_parameters()} == shapes | norm


@pytest.fixture(scope="module")
def nano() -> Supernet:
    torch.manual_seed(0)
    net = Supernet(load_space("lvt_nano"), make_tasks(), SupernetConfig(score_start="uniform"))
    randomize(net)
    return net


def test_the_linear_layers_are_adaptive(nano):
    linears = {
        name
        for name, module in nano.networks["det"].named_modules()
        if isinstance(module, (nn.Linear, TapLinear)) and name.startswith("backbone.")
    }
    assert set(nano.layers) == linears
    assert all(nano.roles(layer) is Role.ADAPTIVE for layer in linears)


def test_a_training_step_reaches_the_leading_slices(nano):
    arch = nano.space.smallest
    sum(nano.subnet(arch, "cls").train().loss(*make_batch("classification")).values()).backward()
    gradient = nano.networks["cls"].backbone.stages[0].patch_embed.proj.weight.grad
    assert gradient[:16].abs().sum() > 0
    assert not gradient[16:].any()
