import pytest

from nasmvt.data import split_train
from nasmvt.errors import UserError


def test_the_two_parts_divide_the_pictures():
    train, search = split_train(103, 0.1, seed=5)
    assert len(search) == 10
    assert sorted([*train, *search]) == list(range(103))


def test_the_seed_alone_decides():
    def chosen(seed):
        return [part.tolist() for part in split_train(50, 0.2, seed)]

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)


@pytest.mark.parametrize(
    ("n", "fraction", "fragment"),
    [(4, 0.1, "no search split is left"), (4, 0.95, "no training images are left")],
)
def test_neither_part_may_be_empty(n, fraction, fragment):
    with pytest.raises(UserError, match=fragment) as error:
        split_train(n, fraction, seed=0)
    assert f"search_fraction {fraction} of {n} training images" in str(error.value)
