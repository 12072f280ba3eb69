"""Units of a choice: the tensors that consist of them, by pattern."""

import torch
from torch import nn

from nasmvt.drafting.factors import Factor
from nasmvt.drafting.network import Spot, Traced
from nasmvt.drafting.units import Group, compressed
from nasmvt.families.timm_units import Plan, Units


def spot(tensor: str, dim: int, parts: int = 1, width: int = 1) -> Spot:
    return Spot(tensor, dim, parts, width, ())


def test_a_tensor_may_consist_of_units_in_several_dimensions() -> None:
    group = Group("width", {Factor(16): [spot("conv.weight", 0), spot("conv.weight", 1), spot("conv.bias", 0)]})
    assert group.tensors() == {"conv.weight": [[0, 1, 1], [1, 1, 1]], "conv.bias": 0}


def test_both_dimensions_are_cut() -> None:
    network = nn.Sequential(nn.Conv2d(16, 16, 1))
    whole = network[0].weight.detach().clone()
    units = Units(largest=16, tensors={"0.weight": [[0, 1, 1], [1, 1, 1]], "0.bias": 0})
    Plan(network, {}, {"width": units}).apply(network, {"width": 8})
    assert torch.equal(network[0].weight, whole[:8, :8])
    assert (network[0].in_channels, network[0].out_channels, len(network[0].bias)) == (8, 8, 8)


def test_no_two_patterns_fit_one_tensor() -> None:
    every = [
        f"stages.{stage}.blocks.{block}.gamma" for stage, depth in ((0, 2), (1, 2), (2, 3)) for block in range(depth)
    ]
    homes = ["stages", *(f"stages.{stage}.blocks" for stage in range(3))]
    last = {name: 0 for name in every if name.startswith("stages.2")}
    assert compressed(last, None, homes, every) == {"stages.2.blocks.*.gamma": 0}
    assert compressed({**last, every[2]: 0}, None, homes, every) == {
        "stages.2.blocks.*.gamma": 0,
        "stages.1.blocks.0.gamma": 0,
    }


def test_strides_are_powers_of_two_where_maps_are_rounded_up() -> None:
    sizes = {"levit": (224, [14, 7, 4]), "xception": (299, [75, 38, 19, 10]), "patches": (224, [32, 16])}
    found = {
        name: Traced(nn.Identity(), {}, side, None, maps=[(c, ()) for c in cells])
        for name, (side, cells) in sizes.items()
    }
    assert {name: traced.strides for name, traced in found.items()} == {
        "levit": [16, 32, 64],
        "xception": [4, 8, 16, 32],
        "patches": [7, 14],
    }
