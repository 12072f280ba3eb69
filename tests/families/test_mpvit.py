"""MPViT: equal to the reference, its published sizes and keys, and its slices."""

import json
from math import prod

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nasmvt.errors import UserError
from nasmvt.families import family, published
from nasmvt.families.mpvit import Attention, Block, MPViT, RelativePosition, build_classifier
from nasmvt.families.mpvit_reference import convert
from nasmvt.families.reference import load_reference
from nasmvt.space import Role, load_space
from nasmvt.supernet import Supernet, SupernetConfig
from nasmvt.supernet.lending import part
from tests.conftest import make_batch, make_tasks, randomize
from tests.families.reference import SHARED, load_vectors

SIZES = {
    "embed_dims": (16, 24, 32, 48),
    "depths": (1, 2, 2, 1),
    "num_paths": (1, 2, 3, 2),
    "mlp_ratios": (2, 1.5, 3, 2),
}


def network(**changes) -> MPViT:
    model = MPViT(**{**SIZES, **changes}).eval()
    randomize(model)
    return model


def take_leading(small: nn.Module, big: nn.Module) -> None:
    stored = big.state_dict()
    small.load_state_dict({name: part(stored[name], tensor.shape) for name, tensor in small.state_dict().items()})


def worst(got: torch.Tensor, want: torch.Tensor) -> float:
    assert got.shape == want.shape
    return ((got - want).abs().max() / want.abs().max()).item()


# -- the reference -----------------------------------------------------------------------------------


def loaded():
    meta, tensors = load_vectors("mpvit")
    config = meta["config"]
    model = build_classifier(
        classes=config["num_classes"],
        embed_dims=config["embed_dims"],
        depths=config["num_layers"],
        num_paths=config["num_path"],
        num_heads=config["num_heads"],
        mlp_ratios=config["mlp_ratios"],
    ).eval()
    state = {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
    load_reference(model, state, convert)
    return meta, tensors, state, model


def test_every_output_equals_the_reference():
    meta, tensors, _, model = loaded()
    assert sum(p.numel() for p in model.parameters()) == meta["params"]
    norms = [m for m in model.modules() if isinstance(m, (nn.LayerNorm, nn.BatchNorm2d))]
    assert {(type(norm), norm.eps) for norm in norms} == {(nn.LayerNorm, 1e-6), (nn.BatchNorm2d, 1e-5)}
    compared = 0
    for size in ("{}x{}".format(*sides) for sides in meta["sizes"]):
        images = tensors[f"input.{size}"]
        with torch.inference_mode():
            outputs = {f"feat{stage}": m for stage, m in enumerate(model.backbone(images), 1)}
            outputs["logits"] = model(images)
        for name, got in outputs.items():
            assert worst(got, tensors[f"{name}.{size}"]) <= 1e-5, (name, size)
            compared += 1
    assert compared == sum(key.startswith(("feat", "logits")) for key in tensors)


def test_a_batch_of_two_equals_two_of_one():
    *_, model = loaded()
    images = torch.randn(2, 3, 75, 58)
    with torch.inference_mode():
        both = [model(images), *model.backbone(images)]
        singles = [[model(one[None]), *model.backbone(one[None])] for one in images]
    for got, *one in zip(both, *singles, strict=True):
        assert worst(got, torch.cat(one)) <= 1e-5


MEASURES = {  # released code: parameters with and without the classifier, GMACs at 224 px
    "mpvit_tiny": (5_843_736, 5_626_736, 1.6355),
    "mpvit_xsmall": (10_573_448, 10_316_448, 2.9502),
    "mpvit_small": (22_892_400, 22_603_400, 4.7713),
    "mpvit_base": (74_845_976, 74_364_976, 16.3901),
}


@pytest.mark.parametrize("name", MEASURES)
def test_published_sizes(name):
    with torch.device("meta"):
        model = published(name).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 224, 224))
    counts = tuple(sum(p.numel() for p in m.parameters()) for m in (model, model.backbone))
    assert (*counts, round(counter.get_total_flops() / 2e9, 4)) == MEASURES[name]


def test_tiny_of_the_dense_tables():
    with torch.device("meta"):
        model = published("mpvit_tiny", classes=None, mlp_ratios=(4, 4, 4, 4))
    assert sum(p.numel() for p in model.parameters()) == 7_934_336


def owner_of(key: str) -> str:
    """The key of the tensor that a block's position encoding is a copy of."""
    path, layers, rest = key.partition("MHCA_layers.")
    encoding = rest.partition(".")[2].removeprefix("factoratt_crpe.crpe.")
    encoding = f"crpe.{encoding}" if ".factoratt_crpe.crpe." in key else encoding
    return path + encoding if layers and encoding.startswith(("cpe.", "crpe.")) else key


def published_state(name: str) -> dict[str, torch.Tensor]:
    path = SHARED / "parity" / f"keys_{name}.json"
    if not path.is_file():
        pytest.skip(f"published keys {path} are absent: set NASMVT_SHARED")
    shapes = json.loads(path.read_text())
    own = [key for key in shapes if owner_of(key) == key]
    lengths = [prod(shapes[key]) for key in own]
    drawn = {
        key: values.view(shapes[key]) for key, values in zip(own, torch.rand(sum(lengths)).split(lengths), strict=True)
    }
    return {key: drawn[owner_of(key)].clone() for key in shapes}


@pytest.mark.parametrize(
    ("name", "keys"), [("mpvit_tiny", 873), ("mpvit_xsmall", 873), ("mpvit_small", 1263), ("mpvit_base", 1419)]
)
def test_published_keys_load_strictly(name, keys):
    state = published_state(name)
    assert len(state) == keys
    with torch.device("meta"):
        model = published(name)
    model = model.to_empty(device="cpu")
    load_reference(model, state, convert)
    assert torch.equal(model.head.fc.weight, state["cls_head.cls.weight"])
    stage = model.backbone.stages[1]
    whole = state["mhca_stages.1.aggregate.conv.weight"]
    assert torch.equal(torch.cat([conv.weight for conv in stage.aggregate.convs], dim=1), whole)
    rows = state["mhca_stages.1.mhca_blks.2.MHCA_layers.0.factoratt_crpe.qkv.weight"].view(
        3, 8, -1, whole.shape[1] // 4
    )
    ours = stage.paths[2].blocks[0].attn.qkv.weight.view(-1, 3, 8, rows.shape[-1])
    assert torch.equal(ours[2, 1, 5], rows[1, 5, 2])

    missing, surplus, misshapen, alias = (dict(state) for _ in range(4))
    del missing["mhca_stages.0.InvRes.dwconv.weight"]
    surplus |= {
        "mhca_stages.0.aggregate.conv.bias": torch.rand(3),
        "norm.weight": torch.rand(3),
        "mhca_stages.0.mhca_blks.0.MHCA_layers.1.cpe.proj.bias": state["mhca_stages.0.mhca_blks.0.cpe.proj.bias"],
    }
    misshapen["mhca_stages.0.mhca_blks.0.MHCA_layers.0.factoratt_crpe.qkv.bias"] = torch.rand(5)
    alias["mhca_stages.0.mhca_blks.0.MHCA_layers.0.factoratt_crpe.crpe.conv_list.1.bias"] = torch.rand(24)
    block = r"mhca_stages\.0\.mhca_blks\.0"
    for broken, message in (
        (missing, r"missing: backbone\.stages\.0\.local\.dwconv\.conv\.weight: check"),
        (surplus, rf"surplus: backbone\.stages\.0\.aggregate\.conv\.bias, norm\.weight, {block}\.MHCA_layers\.1\.cpe"),
        (misshapen, r"another shape: backbone\.stages\.0\.paths\.0\.blocks\.0\.attn\.qkv\.bias \(5,\) instead"),
        (alias, rf"{block}\.MHCA_layers\.0\.factoratt_crpe\.crpe\.conv_list\.1\.bias differs from {block}\.crpe"),
    ):
        with pytest.raises(UserError, match=message):
            load_reference(model, broken, convert)


def test_a_misshapen_aggregation_is_refused_by_name():
    state = published_state("mpvit_tiny")
    key = "mhca_stages.0.aggregate.conv.weight"
    for tensor, message in (
        (torch.rand(96, 4 * 64, 1, 1), r"surplus: backbone\.stages\.0\.aggregate\.convs\.3\.weight"),
        (torch.rand(96, 3 * 64 - 1, 1, 1), r"aggregate\.convs\.2\.weight \(96, 63, 1, 1\) instead"),
        (torch.rand(96), r"surplus: backbone\.stages\.0\.aggregate\.conv\.weight"),
    ):
        with pytest.raises(UserError, match=message):
            published("mpvit_tiny", weights=state | {key: tensor})
    with pytest.raises(
        UserError, match=r"surplus: .*blocks\.2\.attn.*of another shape: .*stages\.1\.aggregate\.convs\.0\.weight"
    ):
        published("mpvit_xsmall", weights=published_state("mpvit_small"))


def test_backbones_load_alone():
    *_, state, model = loaded()
    dense = {key: tensor for key, tensor in state.items() if not key.startswith("cls_head.")}
    sizes = {**SIZES, "num_paths": (2, 3, 3, 2), "mlp_ratios": (2, 3, 4, 2)}
    images = torch.rand(1, 3, 32, 32)
    for weights in (state, dense):
        backbone = published("mpvit_tiny", classes=None, weights=weights, **sizes).eval()
        for got, want in zip(backbone(images), model.backbone(images), strict=True):
            assert torch.equal(got, want)


# -- the network -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (40, 56), (45, 71), (33, 130), (5, 9)])
@pytest.mark.parametrize("heads", [8, 4, 1])
def test_any_input_size(size, heads):
    model = network(num_heads=(8, 8, heads, heads))
    maps = model(torch.rand(2, 3, *size))
    assert model.strides == (4, 8, 16, 32)
    assert model.widths == (24, 32, 48, 48)
    for stride, width, m in zip(model.strides, model.widths, maps, strict=True):
        assert m.shape == (2, width, -(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize("heads", [(8, [2, 3, 3]), (16, [4, 6, 6]), (4, [1, 2, 1]), (2, [1, 1]), (1, [1])])
def test_heads_are_divided_among_the_kernels(heads):
    crpe = RelativePosition(6, heads[0])
    assert crpe.groups == heads[1]
    assert [conv.kernel_size for conv in crpe.convs] == [(3, 3), (5, 5), (7, 7)][: len(heads[1])]


def test_attention_as_specified():
    h, c, size = 8, 3, (4, 5)
    layer, crpe = Attention(h * c, h), RelativePosition(c, h)
    randomize(layer)
    randomize(crpe)
    x = torch.rand(1, 20, h * c)
    rows = layer.qkv(x)[0].view(20, c, 3, h)
    out = torch.zeros(20, c, h)
    for head in range(h):
        q, k, v = rows[:, :, 0, head], rows[:, :, 1, head], rows[:, :, 2, head]
        group, member = (0, head) if head < 2 else (1, head - 2) if head < 5 else (2, head - 5)
        conv, heads = crpe.convs[group], (2, 3, 3)[group]
        for channel in range(c):
            filters = slice(channel * heads + member, channel * heads + member + 1)
            image = v[:, channel].view(1, 1, *size)
            encoded = nn.functional.conv2d(image, conv.weight[filters], conv.bias[filters], padding=group + 1)
            factorised = q @ (k.softmax(0).T @ v)
            out[:, channel, head] = c**-0.5 * factorised[:, channel] + q[:, channel] * encoded.flatten()
    torch.testing.assert_close(layer(x, size, crpe)[0], layer.proj(out.flatten(1)), rtol=1e-5, atol=1e-6)


def test_what_cannot_be_built_is_refused():
    with pytest.raises(UserError, match="multiple of its heads, but stage 2 has 24 channels and 7 heads"):
        network(num_heads=(8, 7, 8, 8))
    with pytest.raises(UserError, match="once per stage, but got embed_dims 4, depths 3, num_paths 4"):
        network(depths=(1, 1, 1))
    nano = load_space("mpvit_nano")
    with pytest.raises(UserError, match="stage 1 has 24 channels and 16 heads"):
        family("mpvit").build(nano.smallest, kind="detection", image_size=(64, 64), num_heads=16)


def test_drop_path_grows_over_the_blocks_and_is_the_same_in_all_paths():
    model = network(drop_path=0.5)
    rates = [[[block.drop_path.drop_prob for block in path.blocks] for path in s.paths] for s in model.stages]
    expected = ([0], [0.1, 0.2], [0.3, 0.4], [0.5])
    for stage, wanted in zip(rates, expected, strict=True):
        assert all(path == pytest.approx(wanted) for path in stage)


def test_weights_are_drawn_as_in_the_released_code():
    model = MPViT(embed_dims=(64, 128, 128, 128), depths=(1,) * 4)
    stage = model.stages[1]
    expected = {
        model.stem[1].conv: (2 / (9 * 64)) ** 0.5,
        stage.embeds[1].dwconv: (2 / (9 * 128)) ** 0.5,
        stage.embeds[1].pwconv.conv: (2 / 128) ** 0.5,
        stage.local.conv1.conv: (2 / 128) ** 0.5,
        stage.local.dwconv.conv: (2 / 9) ** 0.5,
        stage.aggregate.convs[3]: (2 / 128) ** 0.5,
        stage.paths[1].blocks[0].attn.qkv: 0.02,
        stage.paths[1].blocks[0].mlp.fc2: 0.02,
        stage.paths[1].cpe: (1 / 27) ** 0.5,
    }
    for layer, std in expected.items():
        assert layer.weight.std().item() == pytest.approx(std, rel=0.1)
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert not any(linear.bias.any() for linear in linears)


# -- slices ------------------------------------------------------------------------------------------


def test_a_narrower_attention_has_the_first_channels_of_every_head():
    """The slice equals the large layer whose further channels get nothing, say nothing, and are not read."""
    small, big = Attention(16, 8), Attention(40, 8)
    small_crpe, big_crpe = RelativePosition(2, 8), RelativePosition(5, 8)
    for layer in (big, big_crpe):
        randomize(layer)
    take_leading(small, big)
    take_leading(small_crpe, big_crpe)
    small.scale = big.scale
    with torch.no_grad():
        for parameter in (big.qkv.weight, big.qkv.bias):
            parameter.view(5, 3, 8, -1)[2:, 0] = 0  # no queries: nothing is added to the first channels' outputs
        big.proj.weight.view(40, 5, 8)[:, 2:] = 0
    x, size = torch.rand(2, 12, 40), (3, 4)
    x[..., 16:] = 0
    got, want = small(x[..., :16], size, small_crpe), big(x, size, big_crpe)[..., :16]
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_the_leading_slice_of_a_checkpoint_is_that_of_every_head():
    *_, state, big = loaded()
    small = build_classifier(
        classes=10, **{**SIZES, "embed_dims": (16, 24, 24, 48), "num_paths": (2, 3, 3, 2), "mlp_ratios": (2, 3, 4, 2)}
    )
    layer, heads = "mhca_stages.2.mhca_blks.0.MHCA_layers.0.factoratt_crpe.", 8
    cut = {
        layer + "qkv.weight": state[layer + "qkv.weight"].view(3, heads, 4, 32)[:, :, :3, :24].reshape(72, 24),
        layer + "qkv.bias": state[layer + "qkv.bias"].view(3, heads, 4)[:, :, :3].flatten(),
        layer + "proj.weight": state[layer + "proj.weight"].view(32, heads, 4)[:24, :, :3].reshape(24, 24),
    }
    path = "mhca_stages.2.mhca_blks.0.crpe.conv_list."
    for group, (members, kernel) in enumerate(((2, 3), (3, 5), (3, 7))):
        whole = state[f"{path}{group}.weight"].view(members, 4, 1, kernel, kernel)
        cut[f"{path}{group}.weight"] = whole[:, :3].flatten(0, 1)
    stored = big.state_dict()
    converted = convert(cut, small)
    assert len(converted) == 6
    for name, tensor in converted.items():
        assert torch.equal(tensor, part(stored[name], tensor.shape)), name


def test_fewer_paths_are_the_first_ones():
    big, small = network(), network(num_paths=(1, 1, 2, 2))
    take_leading(small, big)
    with torch.no_grad():
        big.stages[1].aggregate.convs[2].weight.zero_()
        big.stages[2].aggregate.convs[3].weight.zero_()
    images = torch.rand(1, 3, 40, 56)
    for got, want in zip(small(images), big(images), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


# -- the spaces --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arch", "name"), [("published", "small"), ("xsmall", "xsmall"), ("tiny", "tiny")])
def test_published_networks_lie_in_the_small_space(arch, name):
    space = load_space("mpvit_small")
    with torch.device("meta"):
        wanted = published(f"mpvit_{name}", classes=None).state_dict()
        for kind in ("classification", "detection", "segmentation"):
            model = family("mpvit").build(space.named(arch), kind=kind, image_size=(224, 224), **space.fixed)
            assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in wanted.items()}


@pytest.fixture(scope="module")
def nano() -> Supernet:
    torch.manual_seed(0)
    net = Supernet(load_space("mpvit_nano"), make_tasks(), SupernetConfig(score_start="uniform"))
    randomize(net)
    return net


def test_the_linear_layers_are_adaptive(nano):
    linears = {
        name
        for name, module in nano.networks["det"].named_modules()
        if isinstance(module, nn.Linear) and name.startswith("backbone.")
    }
    blocks = [module for module in nano.networks["det"].modules() if isinstance(module, Block)]
    assert len(linears) == 4 * len(blocks)
    assert set(nano.layers) == linears
    assert all(nano.roles(layer) is Role.ADAPTIVE for layer in linears)


def test_a_training_step_reaches_the_leading_slices(nano):
    arch = nano.space.smallest
    sum(nano.subnet(arch, "seg").train().loss(*make_batch("segmentation")).values()).backward()
    backbone = nano.networks["seg"].backbone
    gradient = backbone.stages[2].paths[0].crpe.convs[1].weight.grad
    members = 2 * arch["embed_dim3"] // 4
    assert gradient[:members].flatten(1).any(dim=1).all()
    assert not gradient[members:].any()
    assert backbone.stages[2].aggregate.convs[2].weight.grad is None
