"""Sizes that a network reads off its tensors say which dimensions of others are the same."""

import copy
import pickle

import pytest
import torch
from draft_space import check
from torch import Tensor, nn

from nasmvt.drafting import draft
from nasmvt.drafting.sizes import Size, Sizes
from nasmvt.drafting.tracing import Trace


class Attention(nn.Module):
    """Attention whose result is viewed in the size of its input, as in PVT, or whose heads divide that size."""

    num_heads = 3

    def __init__(self, divides: bool) -> None:
        super().__init__()
        self.divides = divides
        self.stem, self.last = nn.Linear(4, 12), nn.Linear(12, 2)
        self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        b, n, c = x.shape
        each = c // self.num_heads if self.divides else 4
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, each).permute(2, 0, 3, 1, 4).unbind(0)
        y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        y = y.transpose(1, 2)
        y = y.flatten(2) if self.divides else y.reshape((x.size(0), x.size(dim=1), x.size(-1)))
        return self.last(self.proj(y))


@pytest.mark.parametrize("divides", [True, False])
def test_a_width_consists_of_the_heads_that_are_viewed_in_its_size(divides) -> None:
    with torch.device("meta"):
        network, x = Attention(divides), torch.empty(2, 5, 4)
    found = Trace(network)
    found.begin(x, ("is the batch", "is a token", "is the input"))
    with torch.no_grad(), found, Sizes(found):
        network(x)
    dims = {(name, place): its for name, place, its in found.places()}
    _, heads, channels = dims["qkv.weight", 0]
    assert (heads.size, heads.fixed, channels.fixed) == (3, "", "is summed over between activations")
    assert dims["stem.weight", 0] == dims["qkv.weight", 1] == dims["proj.weight", 1] == [heads, channels]


def test_a_size_is_a_number_and_is_copied_as_one() -> None:
    size = Size.of(12, [])
    assert isinstance(size // 3, Size)
    assert (size // 3, (size // 3).by) == (4, 3)
    assert type(size // 5) is type(size // 3 // 2) is type(size * 2) is int
    for other in (copy.deepcopy(size), pickle.loads(pickle.dumps(size))):
        assert other == 12
        assert type(other) is int


def test_the_width_of_a_pyramid_of_transformers_varies_by_heads() -> None:
    """Stages 1 to 3 of PVT v2 B0 have several heads of 32 channels, and their maps as many."""
    drafted = draft("pvt_v2_b0")
    levels = drafted.values["fixed"]["maps"]["levels"]
    assert [(level.get("units", ""), level.get("each")) for level in levels] == [
        ("", None),
        *((f"stages_{stage}_downsample_heads", 32) for stage in (1, 2, 3)),
    ]
    assert drafted.space("pvt").choices["stages_3_downsample_heads"].options == (4, 6, 8)


def test_maps_may_have_a_share_of_a_choice() -> None:
    """Blocks of Xception's stages choose together, and are not as wide as each other."""
    drafted = draft("xception41p")
    shared = [level for level in drafted.values["fixed"]["maps"]["levels"] if level["units"].startswith("blocks_stack")]
    largest = drafted.values["fixed"]["units"][shared[0]["units"]]["largest"]
    assert len(shared) > 1
    assert all(level["width"] < largest for level in shared)


def test_a_network_tied_by_its_sizes_passes_every_check() -> None:
    found = check("pvt_v2_b0")
    assert (found.equal, found.exact, found.trains) == (True, True, True)
