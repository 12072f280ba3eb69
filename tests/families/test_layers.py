import pytest
import torch

from nasmvt.families.layers import attend_in_windows, padded


def test_a_map_that_fits_is_not_copied() -> None:
    x = torch.rand(1, 4, 6, 3)
    assert padded(x, 2) is x


@pytest.mark.parametrize(("centred", "where"), [(False, (0, 0)), (True, (1, 0))])
def test_zeros_are_put_where_asked(centred: bool, where: tuple[int, int]) -> None:
    x = torch.rand(2, 5, 7, 3) + 1
    top, left = where  # of 3 rows and 1 column that are missing to multiples of 8
    expected = torch.zeros(2, 8, 8, 3)
    expected[:, top : top + 5, left : left + 7] = x
    assert torch.equal(padded(x, 8, centred=centred), expected)
    assert torch.equal(padded(x.permute(0, 3, 1, 2), 8, rows=2, centred=centred), expected.permute(0, 3, 1, 2))


@pytest.mark.parametrize("size", [(4, 8), (5, 7), (1, 2)])
@pytest.mark.parametrize("centred", [False, True])
def test_windows_are_put_back_where_they_were(size: tuple[int, int], centred: bool) -> None:
    tokens = torch.rand(2, size[0] * size[1], 3)
    assert torch.equal(attend_in_windows(lambda windows: windows, tokens, size, 4, centred=centred), tokens)


@pytest.mark.parametrize(("centred", "expected"), [(False, [4, 4, 4, 4, 0, 0]), (True, [0, 0, 0, 4, 4, 4])])
def test_attention_sees_the_tokens_of_its_window_alone(centred: bool, expected: list[int]) -> None:
    """Sums of windows of side 4 on a map of 6 rows: of four and two, or of three and three around the centre."""
    tokens = torch.zeros(1, 12, 1)
    tokens[0, 6:8] = 2  # the fourth row

    def sums(windows: torch.Tensor) -> torch.Tensor:
        return windows.sum(1, keepdim=True).expand_as(windows)

    found = attend_in_windows(sums, tokens, (6, 2), 4, centred=centred).view(6, 2)
    assert found[:, 0].tolist() == found[:, 1].tolist() == expected
