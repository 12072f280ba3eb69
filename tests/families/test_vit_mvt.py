"""ViT-MVT as a plain network, and as a family."""

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.families import ViTMVT, biased_attention, family
from nasmvt.families.biased_attention import relative_position_index
from nasmvt.families.vit_mvt import stage_ends
from nasmvt.space import SearchSpace, load_space
from tests.conftest import TINY_SPACE, randomize


def network(**changes) -> ViTMVT:
    sizes = {"image_size": (32, 32), "embed_dim": 16, "num_heads": [1, 2, 1, 2], "mlp_ratio": [1, 2, 1, 2]}
    return ViTMVT(**{**sizes, "head_dim": 8, "patch_size": 8, "stem_width": 8, "out_blocks": (1, 3), **changes})


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("size", [(32, 32), (16, 16), (45, 71), (64, 24)])
def test_any_input_size(size, window):
    model = network(window_size=window).eval()
    maps = model(torch.rand(1, 3, *size))
    grid = tuple((side + 1) // 2 // 4 for side in size)
    assert [tuple(m.shape) for m in maps] == [(1, 16, *grid)] * 2
    assert model.strides == (8, 8)
    assert model.widths == (16, 16)


@pytest.mark.parametrize("window", [None, 3])
def test_a_batch_of_two_equals_two_of_one(window):
    model = network(window_size=window, conv_blocks=(1, 3)).eval()
    randomize(model)
    images = torch.rand(2, 3, 40, 56)
    both = model(images)
    for index in range(2):
        for whole, single in zip(both, model(images[index : index + 1]), strict=True):
            torch.testing.assert_close(whole[index : index + 1], single, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("size", [(32, 32), (45, 71)])
def test_gradients_do_not_depend_on_how_many_scores_are_held_at_a_time(size, dtype, within, monkeypatch):
    found, images = [], torch.rand(2, 3, *size)
    for kept in (biased_attention._SCORES, 0):
        monkeypatch.setattr(biased_attention, "_SCORES", kept)
        monkeypatch.setattr(biased_attention, "_SCORES_AT_ONCE", 200)
        model = network(drop_path=0.0)
        randomize(model)
        with Held() as held, torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            maps = model(images)
        sum(m.square().sum() for m in maps).backward()
        found.append((held.most, [*maps, *(parameter.grad for parameter in model.parameters())]))
    (all_at_once, plain), (some, parted) = found
    tokens = maps[0].shape[-2] * maps[0].shape[-1]
    assert all_at_once == 2 * 2 * tokens**2  # two images, two heads
    assert some <= 2 * 200
    for ours, theirs in zip(parted, plain, strict=True):
        assert (ours - theirs).norm() <= within * theirs.norm()


class Held(TorchFunctionMode):
    """Notes the largest number of attention scores of one call."""

    most = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention:
            queries, keys = args[:2]
            self.most = max(self.most, queries[..., 0].numel() * keys.shape[2])
        return function(*args, **(kwargs or {}))


def test_windows_do_not_see_each_other():
    model = network(window_size=2, num_heads=[1], mlp_ratio=[1], out_blocks=(0,))
    block = model.blocks[0].eval()
    randomize(model)
    torch.nn.init.zeros_(block.lpu.weight)
    torch.nn.init.zeros_(block.dwconv.weight)
    torch.nn.init.zeros_(block.se.fc1.weight)
    x = torch.rand(1, 16, 4, 4)
    changed = x.clone()
    changed[..., 2:, 2:] += 1
    window, whole = (relative_position_index(side, side, x.device) for side in (2, 4))
    before, after = block(x, 2, window), block(changed, 2, window)
    assert torch.equal(before[..., :2, :], after[..., :2, :])
    assert torch.equal(before[..., :2], after[..., :2])
    assert not torch.equal(before[..., 2:, 2:], after[..., 2:, 2:])
    assert not torch.equal(block(x, None, whole)[..., :2, :], block(changed, None, whole)[..., :2, :])


def test_only_the_last_blocks_map_is_normed():
    model = network().eval()
    with torch.no_grad():
        model.norm.weight.zero_()
    first, last = model(torch.rand(1, 3, 32, 32))
    assert first.abs().sum() > 0
    assert last.abs().sum() == 0


@pytest.mark.parametrize(
    ("depth", "ends"), [(14, (2, 5, 9, 13)), (16, (3, 7, 11, 15)), (4, (0, 1, 2, 3)), (6, (0, 1, 3, 5))]
)
def test_stage_ends(depth, ends):
    assert stage_ends(depth) == ends


def test_too_shallow_is_refused():
    with pytest.raises(UserError, match="depth of at least 4, not 3"):
        stage_ends(3)


def test_layer_norm_epsilon_is_a_fixed_size():
    space = parse(SearchSpace, {**TINY_SPACE, "fixed": {"norm_eps": 1e-5, "head_dim": 8}}, "x")
    model = family("vit_mvt").build(space.smallest, kind="classification", image_size=(32, 32), **space.fixed)
    assert {m.eps for m in model.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-5}


PUBLISHED = {  # millions, released code; tables of relative positions are counted there with the largest head count
    "vit_mvt_tiny": (7.243620, 1.201338),
    "vit_mvt_small": (23.245824, 2.371104),
    "vit_mvt_base": (56.404992, 4.127040),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_subnets_have_the_papers_parameters(name):
    space = load_space(name)
    with torch.device("meta"):
        model = family("vit_mvt").build(
            space.named("published"), kind="classification", image_size=(224, 224), **space.fixed
        )
    roles = family("vit_mvt").roles
    adaptive = sum(
        p.numel() for n, p in model.named_parameters() if roles("backbone." + n.rpartition(".")[0]) == "adaptive"
    )
    own = ("stem.", "pos_embed", "relative_bias")
    rest = sum(
        p.numel()
        for n, p in model.named_parameters()
        if roles("backbone." + n.rpartition(".")[0]) != "adaptive" and not any(part in n for part in own)
    )
    assert (adaptive, rest) == tuple(round(1e6 * value) for value in PUBLISHED[name])


def test_unknown_family_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'vit_mvt'"):
        family("vit_mtv")
