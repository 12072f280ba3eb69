"""ViTAEv2: equal to the reference's vectors and counts, readable from its checkpoints, meaningful in slices."""

import json

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nasmvt.errors import UserError
from nasmvt.families import family, published
from nasmvt.families.reference import load_reference
from nasmvt.families.vitae_v2 import ViTAEv2, convert
from nasmvt.families.vitae_v2_cells import Attention, NormalCell, ReductionAttention, ReductionCell, pcm
from nasmvt.space import load_space
from nasmvt.supernet.lending import part
from tests.conftest import randomize
from tests.families.reference import SHARED, load_vectors

TINY = {
    "embed_dims": (8, 16, 16, 32),
    "pyramid_dims": (4, 8, 8, 16),
    "depths": (1, 1, 2, 1),
    "num_heads": (1, 2, 2, 4),
    "reduction_heads": (1, 1, 2, 2),
    "groups": (1, 4, 4, 8),
    "reduction_groups": (1, 2, 4, 8),
}


def sizes_of(config: dict) -> dict:
    """Our names for the released code's sizes."""
    windows = {"window": config["window_size"], "transformer": None}
    return {
        "embed_dims": config["token_dims"],
        "pyramid_dims": config["embed_dims"],
        "depths": config["NC_depth"],
        "num_heads": config["NC_heads"],
        "reduction_heads": config["RC_heads"],
        "groups": config["NC_group"],
        "reduction_groups": config["RC_group"],
        "mlp_ratios": [config["mlp_ratio"]] * config["stages"],
        "window_sizes": [windows[kind] for kind in config["NC_tokens_type"]],
        "reduction_window_sizes": [windows[kind] for kind in config["RC_tokens_type"]],
        "ratios": config["downsample_ratios"],
    }


def official(tensors: dict) -> dict:
    return {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}


def worst(got: torch.Tensor, want: torch.Tensor) -> float:
    assert got.shape == want.shape
    return ((got - want).abs().max() / want.abs().max()).item()


# -- the reference ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vitaev2", "vitaev2_dense"])
def test_every_output_equals_the_reference(name):
    meta, tensors = load_vectors(name)
    classes = meta["config"].get("num_classes")
    network = published("vitae_v2_s", classes=classes, weights=official(tensors), **sizes_of(meta["config"])).eval()
    backbone = network.backbone if classes else network
    for height, width in meta["sizes"]:
        images = tensors[f"input.{height}x{width}"]
        with torch.inference_mode():
            maps = backbone(images)
            outputs = {f"feat{number}": got for number, got in enumerate(maps, 1)}
            if classes:
                outputs["logits"] = network(images)
            twice = backbone(torch.cat([images, images.flip(-1)]))
            flipped = backbone(images.flip(-1))
        given = {key for key in tensors if key.endswith(f".{height}x{width}")} - {f"input.{height}x{width}"}
        assert given == {f"{key}.{height}x{width}" for key in outputs}
        for key, got in outputs.items():
            assert worst(got, tensors[f"{key}.{height}x{width}"]) <= 1e-5, key
        for both, one, other in zip(twice, maps, flipped, strict=True):
            assert worst(both, torch.cat([one, other])) <= 1e-5


def test_epsilons_are_the_references():
    network = ViTAEv2(**TINY)
    cells = {ReductionCell: 1e-5, NormalCell: 1e-6}
    found = {
        kind: [norm.eps for cell in network.modules() if isinstance(cell, kind) for norm in (cell.norm1, cell.norm2)]
        for kind in cells
    }
    assert found == {ReductionCell: [1e-5] * 8, NormalCell: [1e-6] * 10}
    assert sum(isinstance(module, nn.LayerNorm) for module in network.modules()) == 18
    assert {module.eps for module in network.modules() if isinstance(module, nn.BatchNorm2d)} == {1e-5}


COUNTS = {  # released code: parameters of the classifier and of the backbone, GMACs at 224 px
    "vitae_v2_s": (19_355_688, 18_842_688, 5.753),
    "vitae_v2_48m": (48_674_632, 47_905_632, 13.341),
    "vitae_v2_b": (89_693_352, 88_668_352, 24.373),
}


@pytest.mark.parametrize("name", COUNTS)
def test_published_sizes_have_the_papers_counts(name):
    with torch.device("meta"):
        network = published(name).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, 224, 224))
    whole, backbone, gmacs = COUNTS[name]
    assert sum(p.numel() for p in network.parameters()) == whole
    assert sum(p.numel() for p in network.backbone.parameters()) == backbone
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=1e-3)


# -- checkpoints --------------------------------------------------------------------------------------


def published_state(name: str, device: str = "cpu") -> dict[str, torch.Tensor]:
    path = SHARED / "parity" / f"keys_{name.replace('vitae_v2', 'vitaev2')}.json"
    if not path.is_file():
        pytest.skip(f"key list {path} is absent: set NASMVT_SHARED")
    return {key: torch.rand(shape, device=device) for key, shape in json.loads(path.read_text()).items()}


def empty(name: str, **changes) -> nn.Module:
    with torch.device("meta"):
        return published(name, **changes)


@pytest.mark.parametrize("name", COUNTS)
def test_published_keys_fit(name):
    state = published_state(name, "meta")
    load_reference(empty(name), state, convert)
    del state["head.weight"], state["head.bias"]
    with torch.device("meta"):
        published(name, classes=None, weights=state)


def test_no_value_of_a_checkpoint_is_lost():
    state = published_state("vitae_v2_s")
    network = empty("vitae_v2_s").to_empty(device="cpu")
    load_reference(network, state, convert)
    held = network.state_dict()
    kept = {key: value for key, value in state.items() if not key.endswith("relative_position_index")}
    assert len(held) == len(kept) == 526
    floats = [value for value in held.values() if value.is_floating_point()]
    total = sum(value.double().sum() for key, value in kept.items() if not key.endswith("num_batches_tracked"))
    torch.testing.assert_close(sum(value.double().sum() for value in floats), total)
    assert torch.equal(held["head.fc.weight"], state["head.weight"])
    rows = state["layers.1.NC.0.attn.qkv.bias"].view(3, 2, 64)  # q/k/v, head, channel
    assert torch.equal(held["backbone.stages.1.blocks.0.attn.qkv.bias"].view(2, 3, 64), rows.transpose(0, 1))
    entries = state["layers.2.RC.attn.attn.qkv.weight"].view(3, 256, 2, 128)  # q/k/v, row, dilation, channel
    ours = held["backbone.stages.2.reduction.attn.qkv.weight"].view(256, 3, 128, 2)
    assert torch.equal(ours, entries.permute(1, 0, 3, 2))


@pytest.mark.parametrize(
    ("key", "ours"),
    [
        ("layers.0.RC.PRM.convs.3.0.weight", "backbone.stages.0.reduction.pyramid.3.weight"),
        ("layers.1.RC.PCM.4.running_var", "backbone.stages.1.reduction.convs.4.running_var"),
        ("layers.1.RC.attn.norm1.weight", "backbone.stages.1.reduction.norm1.weight"),
        ("layers.1.RC.attn.attn.qkv.weight", "backbone.stages.1.reduction.attn.qkv.weight"),
        ("layers.1.NC.0.attn.qkv.weight", "backbone.stages.1.blocks.0.attn.qkv.weight"),
        ("layers.3.NC.1.attn.qkv.bias", "backbone.stages.3.blocks.1.attn.qkv.bias"),
        ("head.bias", "head.fc.bias"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(key, ours):
    state = published_state("vitae_v2_s", "meta")
    network = empty("vitae_v2_s")
    for shape in ([n + 1 for n in state[key].shape], [3 * n for n in state[key].shape], [6]):
        with pytest.raises(UserError, match=rf"of another shape: {ours} \("):
            load_reference(network, {**state, key: torch.rand(shape, device="meta")}, convert)
    del state[key]
    with pytest.raises(UserError, match=f"missing: {ours}:"):
        load_reference(network, state, convert)


@pytest.mark.parametrize(
    ("key", "ours"),
    [
        ("layers.1.NC.0.attn.table", "backbone.stages.1.blocks.0.attn.table"),  # as relative positions would have
        ("layers.0.RC.attn.gamma1", "backbone.stages.0.reduction.gamma1"),
        ("layers.0.RC.PRM.convs.4.0.bias", "backbone.stages.0.reduction.pyramid.4.bias"),
        ("norm.relative_position_index", "norm.relative_position_index"),
        ("head.fc.scale", "head.fc.scale"),
    ],
)
def test_what_is_left_over_is_refused_by_name(key, ours):
    state = published_state("vitae_v2_s", "meta")
    state[key] = torch.empty(3, device="meta")
    with pytest.raises(UserError, match=f"surplus: {ours}: "):
        load_reference(empty("vitae_v2_s"), state, convert)


# -- the plain network --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (40, 56), (33, 47), (66, 61), (7, 5), (1, 1)])
def test_any_input_size(size):
    network = ViTAEv2(**TINY).eval()
    with torch.no_grad():
        maps = network(torch.rand(1, 3, *size))
    grids = [tuple(-(-side // stride) for side in size) for stride in (4, 8, 16, 32)]
    assert [tuple(m.shape[2:]) for m in maps] == grids
    assert [m.shape[1] for m in maps] == [8, 16, 16, 32]
    assert network.strides == (4, 8, 16, 32)
    assert network.widths == (8, 16, 16, 32)


def test_padding_a_map_to_an_even_size_is_the_padding_of_the_convolutions():
    cell = ViTAEv2(**TINY).stages[1].reduction.eval()
    x = torch.rand(1, 8, 13, 11)
    even = nn.functional.pad(x, (0, 1, 0, 1))
    for module in (cell.convs, *cell.pyramid):
        torch.testing.assert_close(module(x), module(even))


def test_stages_may_mix_windows_and_whole_maps():
    sizes = {"window_sizes": (None, 5, None, 3), "reduction_window_sizes": (7, None, 2, None), "ratios": (2, 2, 4, 2)}
    network = ViTAEv2(**TINY, **sizes).eval()
    biases = [stage.reduction.attn.qkv.bias is not None for stage in network.stages]
    assert biases == [True, False, True, False]
    assert network.strides == (2, 4, 16, 32)
    with torch.no_grad():
        assert [m.shape[-1] for m in network(torch.rand(1, 3, 32, 64))] == [32, 16, 4, 2]


def test_padding_takes_part_in_windows_and_is_even_on_both_sides():
    cell = NormalCell(
        4, num_heads=1, head_dim=4, mlp_dim=4, conv_dim=4, groups=1, window_size=3, drop_path=0.0,
        relative_positions=False, norm_eps=1e-6,
    ).eval()  # fmt: skip
    randomize(cell)
    x = torch.rand(1, 4, 5, 4)  # rows: none above, one below; columns: one left, one right
    padded = torch.zeros(1, 6, 6, 4)
    padded[:, :5, 1:5] = cell.norm1(x.permute(0, 2, 3, 1))
    whole = torch.zeros(6, 6, 4)
    for row in (0, 3):
        for column in (0, 3):
            window = padded[:, row : row + 3, column : column + 3].reshape(1, 9, 4)
            whole[row : row + 3, column : column + 3] = cell.attn(window).view(3, 3, 4)
    got = cell._attend(x.flatten(2).transpose(1, 2), (5, 4))
    torch.testing.assert_close(got.view(5, 4, 4), whole[:5, 1:5])


def test_drop_path_rises_over_the_depth():
    network = ViTAEv2(**TINY, drop_path=0.2)
    rates = [cell.drop_path.drop_prob for cell in network.modules() if isinstance(cell, NormalCell)]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_initialisation():
    network = ViTAEv2(**{**TINY, "embed_dims": (64, 64, 64, 64)})
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    weights = torch.cat([module.weight.flatten() for module in linear])
    assert weights.std().item() == pytest.approx(0.02, rel=0.02)
    assert all(module.bias is None or not module.bias.any() for module in linear)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": (1, 3, 2, 4)}, "attention heads must divide 16 channels, but are 3"),
        ({"reduction_heads": (1, 1, 3, 2)}, "attention heads must divide 16 channels, but are 3"),
        ({"groups": (1, 3, 4, 8)}, "the groups of a PCM must divide 16 channels, but are 3"),
        ({"reduction_groups": (1, 2, 16, 8)}, "the groups of a PCM must divide 8 channels, but are 16"),
        ({"ratios": (4, 2, 3, 2)}, "ratio must be 2 or 4, not 3"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        ViTAEv2(**{**TINY, **changes})


def sliced(large: nn.Module, small: nn.Module) -> None:
    """Give a network the leading slices of a larger one's tensors."""
    randomize(large)
    held = large.state_dict()
    small.load_state_dict({name: part(held[name], value.shape) for name, value in small.state_dict().items()})
    large.eval()
    small.eval()


@pytest.mark.parametrize(
    "make",
    [
        lambda dim, heads: Attention(dim, heads, 4),
        lambda dim, heads: ReductionAttention(dim, dim, heads, residual=False),
        lambda dim, heads: ReductionAttention(dim, dim, heads, residual=True),
    ],
)
def test_a_slice_of_an_attention_has_its_first_heads(make):
    large, small = make(12, 3), make(8, 2)
    sliced(large, small)
    x = torch.rand(2, 5, 12)
    x[..., 8:] = 0
    with torch.no_grad():
        large.proj.weight[:, 8:] = 0
        torch.testing.assert_close(small(x[..., :8]), large(x)[..., :8])


@pytest.mark.parametrize("residual", [False, True])
def test_a_slice_of_a_single_head_has_its_first_channels(residual):
    large, small = ReductionAttention(12, 16, 1, residual=residual), ReductionAttention(8, 4, 1, residual=residual)
    sliced(large, small)
    x = torch.rand(2, 5, 12)
    x[..., 8:] = 0
    with torch.no_grad():
        rows = large.qkv.weight.view(16, 3, 12)
        rows[4:] = 0
        rows[:, 0] *= 2  # the scale is the root of the head's width
        if not residual:
            biases = large.qkv.bias.view(16, 3)
            biases[4:] = 0
            biases[:, 0] *= 2
        torch.testing.assert_close(small(x[..., :8]), large(x)[..., :4])


@pytest.mark.parametrize(("widths", "groups"), [((8, 32, 8, 8), 2), ((8, 8, 8, 16), 2)])
def test_a_slice_of_grouped_convolutions_has_their_first_groups(widths, groups):
    large, small = pcm(tuple(2 * n for n in widths), 2 * groups, (1, 2, 1)), pcm(widths, groups, (1, 2, 1))
    sliced(large, small)
    x = torch.rand(2, 16, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(small(x[:, :8]), large(x)[:, : widths[-1]])


def test_a_slice_of_the_pyramid_has_the_first_channels_of_every_dilation():
    large, small = (ViTAEv2(**{**TINY, "pyramid_dims": (n, 8, 8, 16)}).stages[0].reduction for n in (6, 4))
    sliced(large, small)
    x = torch.rand(1, 3, 32, 32)
    seen = []
    for cell in (large, small):
        cell.norm1.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        large(x)
        small(x)
        of_dilations = [nn.functional.gelu(conv(x)).flatten(2).transpose(1, 2) for conv in small.pyramid]
    torch.testing.assert_close(seen[1], seen[0][..., :16])
    torch.testing.assert_close(seen[1].unflatten(2, (4, 4)), torch.stack(of_dilations, -1))


@pytest.mark.parametrize("kind", ["classification", "detection", "segmentation"])
def test_the_small_space_holds_the_published_s(kind):
    space = load_space("vitae_v2_small")
    with torch.device("meta"):
        ours = family("vitae_v2").build(space.named("published"), kind=kind, image_size=(224, 224), **space.fixed)
        theirs = published("vitae_v2_s", classes=None)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    for mine, other in zip(ours.modules(), theirs.modules(), strict=True):
        for name in ("num_heads", "head_dim", "groups", "stride", "window_size"):
            assert getattr(mine, name, None) == getattr(other, name, None)


@pytest.mark.parametrize(
    ("name", "smallest", "largest"),
    [("vitae_v2_small", 3_863_968, 57_537_312), ("vitae_v2_nano", 143_496, 972_752)],
)
def test_sizes_of_the_spaces(name, smallest, largest):
    space, build = load_space(name), family("vitae_v2").build
    with torch.device("meta"):
        built = [
            build(a, kind="detection", image_size=(64, 64), **space.fixed) for a in (space.smallest, space.largest)
        ]
    counts = [sum(p.numel() for p in network.parameters()) for network in built]
    assert counts == [smallest, largest]


@pytest.mark.parametrize(
    ("fixed", "name"), [({"group_width": 3}, "group_width"), ({"reduction_head_dim": 5}, "reduction_head_dim")]
)
def test_a_space_whose_widths_do_not_divide_is_refused(fixed, name):
    values = load_space("vitae_v2_nano")
    with pytest.raises(UserError, match=f"{name} must divide a width"):
        family("vitae_v2").build(values.smallest, kind="detection", image_size=(64, 64), **{**values.fixed, **fixed})


def test_attention_and_mlp_are_adaptive():
    network = ViTAEv2(**TINY)
    roles = family("vitae_v2").roles
    adaptive = {name for name, _ in network.named_modules() if roles(f"backbone.{name}") == "adaptive"}
    assert adaptive == {name for name, module in network.named_modules() if isinstance(module, nn.Linear)}
