"""Widths in multiples: the setting `round_to` of a space."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from nasmvt.config import parse
from nasmvt.cost import Budget, Costs, count_parameters
from nasmvt.drafting import draft
from nasmvt.errors import UserError
from nasmvt.families import family
from nasmvt.families.rounding import multiple
from nasmvt.families.timm_units import Units
from nasmvt.space import SearchSpace
from nasmvt.supernet import Supernet
from tests.conftest import TINY_SPACE, make_tasks
from tests.families.small_spaces import ROUNDED, SMALL
from tests.search.toys import every_arch

ODD = {**ROUNDED, "choices": {**ROUNDED["choices"], "depth": [4]}}

VITAE_CHOICES = {"embed_dim": [16, 24], **{f"pyramid_dim{stage}": [8, 16] for stage in range(1, 5)}}
VITAE = SMALL["vitae_v2_nano"].model_dump(mode="json")
ALL = {
    "odd": ODD,
    **{
        name: {**space.model_dump(mode="json"), "round_to": 8}
        for name, space in SMALL.items()
        if space.family != "vit_mvt"
    },
    "vitae_v2_nano": {**VITAE, "round_to": 8, "choices": {**VITAE["choices"], **VITAE_CHOICES}},
    "efficientnet_24": {**SMALL["efficientnet"].model_dump(mode="json"), "round_to": 24},
}


def spaces(name: str) -> SearchSpace:
    return parse(SearchSpace, ALL[name], name)


def widths(network: nn.Module) -> dict[str, int]:
    """Channels that layers read and give, by name."""
    found: dict[str, int] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            found |= {f"{name}.in": module.in_channels, f"{name}.out": module.out_channels}
        elif isinstance(module, nn.Linear):
            found |= {f"{name}.in": module.in_features, f"{name}.out": module.out_features}
        elif type(module).__name__ == "HeadsLinear":
            found |= {f"{name}.in": module.weight.shape[2], f"{name}.out": module.weight.shape[1]}
    return found


def varying(built: list[dict[str, int]]) -> dict[str, set[int]]:
    together: dict[str, set[int]] = {}
    for each in built:
        for name, width in each.items():
            together.setdefault(name, set()).add(width)
    return {name: sizes for name, sizes in together.items() if len(sizes) > 1}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", ["classification", "detection"])
def test_every_width_that_varies_is_a_multiple(name, kind) -> None:
    space, rng = spaces(name), np.random.default_rng(0)
    family(space.family).check(space)
    step = space.fixed["round_to"]
    built = []
    with torch.device("meta"):
        for arch in (*space.covering, *(space.sample(rng) for _ in range(5))):
            built.append(widths(family(space.family).backbone(space, arch, kind=kind, image_size=(64, 64))))
    found = varying(built)
    assert len(found) > 5
    wrong = {key: sizes for key, sizes in found.items() if any(size % step for size in sizes)}
    # a head's own convolution, whose width the stage's gives; one logit for each head and tap
    assert not {key: sizes for key, sizes in wrong.items() if ".crpe." not in key and not key.endswith("logits.out")}


def test_the_nearest_multiple_of_ratio_times_width() -> None:
    space = spaces("odd")
    arch = space.arch({"depth": 4, "embed_dim": 36, "num_heads": [1] * 4, "mlp_ratio": [1.3, 2.2, 1.3, 2.2]})
    network = family("vit_mvt").backbone(space, arch, kind="classification", image_size=(32, 32))
    assert network.widths == (40,)
    assert [block.fc1.out_features for block in network.blocks] == [56, 88, 56, 88]  # of 52 and 88
    assert network.blocks[0].se.fc1.out_channels == 8  # of 5
    assert (multiple(12, 8), multiple(11.9, 8), multiple(1, 8), multiple(11.9, 1)) == (16, 8, 8, 11)


def test_networks_without_the_setting_are_as_before() -> None:
    values = {key: value for key, value in ODD.items() if key != "round_to"}
    one, other = parse(SearchSpace, values, "odd"), parse(SearchSpace, {**values, "round_to": 1}, "odd")
    for space in (one, other):
        network = family("vit_mvt").backbone(space, space.largest, kind="classification", image_size=(32, 32))
        assert network.blocks[0].fc1.out_features == 79  # of 79.2
        assert network.blocks[0].se.fc1.out_channels == 4


def test_counts_are_exact_and_draws_uniform() -> None:
    space, tasks = spaces("odd"), {"cls": make_tasks()["cls"]}
    sharing = Supernet(space, tasks).sharing()
    costs, rng = Costs(space, tasks, sharing), np.random.default_rng(0)
    for _ in range(5):
        arch = space.sample(rng)
        assert costs.parameters(arch) == count_parameters(space, tasks, arch, sharing)
    sizes = {arch: costs.parameters(arch).total for arch in every_arch(space)}
    bound = sorted(sizes.values())[len(sizes) // 2]
    within = {arch for arch, size in sizes.items() if size <= bound}
    drawn = Counter(Budget(parameters=bound).feasible(costs).sample(100 * len(within), np.random.default_rng(1)))
    assert set(drawn) == within
    statistic = sum((count - 100) ** 2 / 100 for count in drawn.values())
    assert abs(statistic - (len(within) - 1)) < 3 * (2 * (len(within) - 1)) ** 0.5


@pytest.mark.parametrize("model", ["test_resnet", "test_vit"])
def test_a_drafted_space_is_rounded_too(model) -> None:
    values = {"name": "mine", **draft(model).values, "round_to": 24, "archs": {}}
    choices, units = dict(values["choices"]), dict(values["fixed"]["units"])
    for name, each in values["fixed"]["units"].items():
        rounded = Units.model_validate(each).rounded(24)
        options = choices[name]["options"] if isinstance(choices[name], dict) else choices[name]
        if min(each["largest"], 2 * options[0]) < 2 * rounded.step:  # too few units: they stay as they are
            del units[name], choices[name]
        else:
            ends = [rounded.step, options[-1]]
            choices[name] = {**choices[name], "options": ends} if isinstance(choices[name], dict) else ends
    values |= {"choices": choices, "fixed": {**values["fixed"], "units": units}}
    space = parse(SearchSpace, values, "mine")
    family("timm").check(space)
    built = []
    with torch.device("meta"):
        for arch in space.covering:
            built.append(widths(family("timm").backbone(space, arch, kind="classification", image_size=(160, 160))))
    found = varying(built)
    assert found
    assert not {name: sizes for name, sizes in found.items() if any(size % 24 for size in sizes)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fixed": {**ODD["fixed"], "head_dim": 12}}, "multiples of round_to 8, which head_dim 12 must be as well"),
        ({"choices": {**ODD["choices"], "embed_dim": [20, 22]}}, "options 20 and 22 of embed_dim are the same width"),
        ({"round_to": 0}, "can't build round_to = 0"),
        ({"round_to": "8"}, "can't build round_to = 8"),
        ({"fixed": {**ODD["fixed"], "round_to": 8}}, "'round_to' is given twice"),
    ],
)
def test_spaces_that_cannot_be_rounded_are_refused(change, message) -> None:
    def check() -> None:
        space = parse(SearchSpace, {**ODD, **change}, "odd")
        Supernet(space, {"cls": make_tasks()["cls"]})

    with pytest.raises(UserError, match=message):
        check()


def test_widths_that_heads_must_divide_are_refused() -> None:
    values = SMALL["lvt_nano"].model_dump(mode="json")
    values |= {"round_to": 8, "fixed": {**values["fixed"], "head_dim": 12}}
    space = parse(SearchSpace, values, "lvt")
    with pytest.raises(UserError, match="must be a multiple of head_dim 12"):
        Supernet(space, {"cls": make_tasks()["cls"]})


def test_a_family_that_does_not_round_refuses_the_setting() -> None:
    from nasmvt.families import register

    @register("unrounded", choices={"depth": int}, roles={})
    def build(arch, *, kind, image_size):
        raise AssertionError

    space = parse(SearchSpace, {**TINY_SPACE, "family": "unrounded", "round_to": 8, "fixed": {}}, "mine")
    with pytest.raises(UserError, match="fixes 'round_to', unknown to family unrounded"):
        family("unrounded").check(space)
