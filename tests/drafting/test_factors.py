"""Factors of dimensions: joined, divided, viewed in other sizes."""

import pytest
import torch
from torch import nn

from nasmvt.drafting.factors import Factor, factors, fix, join, regroup
from nasmvt.drafting.tracing import Trace


def sizes(dim) -> list[int]:
    return [factor.size for factor in factors(dim)]


def test_joined_dimensions_are_divided_together() -> None:
    rows, columns = [Factor(12)], [Factor(12)]
    join(rows, columns)
    three, rest = regroup([rows], (3, 4))
    assert factors(columns) == factors([*three, *rest])
    assert sizes(columns) == [3, 4]


def test_a_reason_reaches_what_is_the_same() -> None:
    rows, heads, channels = [Factor(12)], [Factor(3)], [Factor(4)]
    join(rows, [*heads, *channels])
    fix(channels, "why")
    assert [factor.fixed for factor in factors(rows)] == ["", "why"]


def test_divisions_that_do_not_meet_fix_no_more_than_they_touch() -> None:
    height, width = [Factor(56)], [Factor(10)]
    regroup([height, width], (8, 7, 10))
    found = regroup([height, width], (28, 2, 10))
    assert all(factor.fixed for factor in factors(height))
    assert factors(found[2]) == factors(width)
    assert not factors(width)[0].fixed


class Mixed(nn.Module):
    """A residual block, heads packed in one layer, a concatenation, an operation that is not followed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 8)
        self.hidden = nn.Sequential(nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 8))
        self.qkv = nn.Linear(8, 3 * 2 * 4)
        self.proj = nn.Linear(2 * 4, 8)
        self.last = nn.Linear(16, 7)
        self.sorted = nn.Linear(7, 9)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.hidden(x)
        q, k, v = self.qkv(x).reshape(2, 3, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        attended = ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = torch.cat([x, self.proj(attended)], dim=-1)
        return self.sorted(self.last(x)).sort(-1)[0]


@pytest.fixture
def trace() -> Trace:
    with torch.device("meta"):
        network, x = Mixed(), torch.empty(2, 3, 5)
    found = Trace(network)
    found.begin(x, ("is the batch", "is a token", "is the input"))
    with torch.no_grad(), found:
        network(x)
    return found


def test_a_network_is_followed(trace) -> None:
    dims = {(name, place): its for name, place, its in trace.places()}
    [stream] = dims["stem.weight", 0]
    assert dims["hidden.2.weight", 0] == dims["hidden.0.weight", 1] == dims["qkv.weight", 1] == [stream]
    assert dims["hidden.0.weight", 0] == dims["hidden.0.bias", 0] == dims["hidden.2.weight", 1]
    assert not dims["hidden.0.weight", 0][0].fixed
    number, heads, channels = dims["qkv.weight", 0]
    assert dims["proj.weight", 1] == [heads, channels]
    assert (number.fixed, heads.fixed) == ("is taken apart", "")
    assert channels.fixed == "is summed over between activations"
    assert stream.fixed == dims["proj.weight", 0][0].fixed == "is concatenated with others"
    assert dims["sorted.weight", 0][0].fixed == "goes through sort, which is not followed"
    assert not dims["last.weight", 0][0].fixed


class Aside(nn.Module):
    """One layer whose result is returned, with something written into it, and one whose result is not."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.written, self.aside = (nn.Linear(4, 4, bias=False) for _ in range(3))

    def forward(self, x):
        out = self.used(x)
        out[:, :2].add_(self.written(x)[:, :2])
        self.aside(x)
        return out


def test_what_a_result_depends_on() -> None:
    with torch.device("meta"):
        network, x = Aside(), torch.empty(3, 4)
    found = Trace(network)
    found.begin(x, ("is the batch", "is the input"))
    with torch.no_grad(), found:
        out = network(x)
    assert found.read_by([out]) == {"used.weight", "written.weight"}


class Patches(nn.Module):
    """Patches of a map that are weighed and put back, as in outlook attention; the map is mirrored at its edge."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)
        self.unfold, self.pad = nn.Unfold(3), nn.ReflectionPad2d(1)

    def forward(self, x):
        y = self.unfold(self.pad(self.stem(x)))
        y = torch.stack([y.unflatten(1, (6, 9)), y.unflatten(1, (6, 9))]).sum(0).flatten(1, 2)
        return self.last(nn.functional.fold(y, (7, 7), 3))


def test_patches_have_the_channels_of_their_map() -> None:
    with torch.device("meta"):
        network, x = Patches(), torch.empty(2, 3, 5, 5)
    found = Trace(network)
    found.begin(x)
    with torch.no_grad(), found:
        network(x)
    dims = {(name, place): its for name, place, its in found.places()}
    assert dims["stem.weight", 0] == dims["last.weight", 1]
    assert not dims["stem.weight", 0][0].fixed
