import pytest
import torch

from nasmvt.heads import FCNHead, LinearHead, UPerNetHead
from nasmvt.heads.upernet import NORMS


def test_logits_have_the_size_of_the_finest_map() -> None:
    maps = [torch.randn(2, 8, side, side + 2) for side in (16, 8, 4, 2)]
    assert UPerNetHead((8,) * 4, 3, channels=8)(maps).shape == (2, 3, 16, 18)
    assert FCNHead((8,) * 4, 3, channels=8)(maps).shape == (2, 3, 2, 4)


def test_every_map_counts() -> None:
    head = UPerNetHead((8,) * 4, 3, channels=8).eval()
    maps = [torch.randn(2, 8, side, side) for side in (16, 8, 4, 2)]
    with torch.no_grad():
        logits = head(maps)
        for i in range(4):
            changed = [m + torch.randn_like(m) if i == j else m for j, m in enumerate(maps)]
            assert not torch.equal(head(changed), logits)


@pytest.mark.parametrize(("norm", "tells"), [("batch", False), ("mixed", True), ("group", True)])
def test_the_branch_pooled_to_one_cell_tells_two_images_apart(norm: str, tells: bool) -> None:
    """BatchNorm over two values is +1 and -1, whatever they are: doubling one of the images changes nothing."""
    head = UPerNetHead((8, 8), 3, channels=64, norm=norm)
    for parameter in head.pools[0].parameters():
        torch.nn.init.uniform_(parameter, 0.1, 1.0)
    cells = torch.stack((torch.zeros(8, 1, 1), torch.rand(8, 1, 1)))
    once, twice = head.pools[0](cells), head.pools[0](torch.stack((cells[0], 2 * torch.rand(8, 1, 1))))
    assert (torch.allclose(once, twice, atol=1e-3)) is not tells


def test_every_norm_has_the_same_parameters() -> None:
    states = [UPerNetHead((8, 8), 3, channels=8, norm=norm).state_dict() for norm in NORMS]
    names = [{name for name in state if "running" not in name and "num_batches" not in name} for state in states]
    assert names[0] == names[1] == names[2]
    maps = [torch.randn(1, 8, side, side) for side in (4, 2)]
    assert UPerNetHead((8, 8), 3, channels=8, norm="mixed")(maps).shape == (1, 3, 4, 4)


def test_linear_head_averages_the_last_map() -> None:
    head = LinearHead(8, 5)
    maps = (torch.randn(2, 8, 9, 9), torch.randn(2, 8, 3, 4))
    expected = maps[1].flatten(2).mean(2) @ head.fc.weight.T + head.fc.bias
    torch.testing.assert_close(head(maps), expected)
