import pytest
import torch

from nasmvt.errors import UserError
from nasmvt.heads import FCNHead, LinearHead, UPerNetHead


def test_logits_have_the_size_of_the_finest_map() -> None:
    maps = [torch.randn(2, 8, side, side + 2) for side in (16, 8, 4, 2)]
    assert UPerNetHead((8,) * 4, 3, channels=8)(maps).shape == (2, 3, 16, 18)
    assert FCNHead(8, 3, channels=8)(maps).shape == (2, 3, 2, 4)


def test_every_map_counts() -> None:
    head = UPerNetHead((8,) * 4, 3, channels=8).eval()
    maps = [torch.randn(2, 8, side, side) for side in (16, 8, 4, 2)]
    with torch.no_grad():
        logits = head(maps)
        for i in range(4):
            changed = [m + torch.randn_like(m) if i == j else m for j, m in enumerate(maps)]
            assert not torch.equal(head(changed), logits)


def test_a_single_picture_can_not_train_a_pool_of_one() -> None:
    maps = [torch.randn(1, 8, side, side) for side in (4, 2)]
    head = UPerNetHead((8, 8), 3, channels=8)
    with pytest.raises(UserError, match="batch_size"):
        head(maps)
    assert head.eval()(maps).shape == (1, 3, 4, 4)
    assert UPerNetHead((8, 8), 3, channels=8, pool_scales=(2,))(maps).shape == (1, 3, 4, 4)


def test_linear_head_averages_the_last_map() -> None:
    head = LinearHead(8, 5)
    maps = (torch.randn(2, 8, 9, 9), torch.randn(2, 8, 3, 4))
    expected = maps[1].flatten(2).mean(2) @ head.fc.weight.T + head.fc.bias
    torch.testing.assert_close(head(maps), expected)
