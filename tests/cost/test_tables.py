"""Tables give what measuring an arch gives, whatever the dependencies."""

import numpy as np
import pytest

from nasmvt.config import parse
from nasmvt.cost import tables as module
from nasmvt.cost.costs import beside
from nasmvt.cost.tables import ItemTables
from nasmvt.errors import UserError
from nasmvt.space import Arch, SearchSpace

CHOICES = {
    "depth": [2, 3, 5],
    "width": [4, 6, 9],
    "stem": [1, 2],
    "heads": {"options": [1, 2, 4], "per": "depth"},
    "ratio": {"options": [1, 3], "per": "depth"},
}


def space(choices: dict | None = None) -> SearchSpace:
    return parse(SearchSpace, {"name": "toy", "family": "none", "choices": choices or CHOICES}, "toy")


def items(arch: Arch) -> dict[str, int]:
    """Costs with every kind of dependency, items of blocks beyond the depth left out."""
    blocks = {
        f"{i}.{name}": cost
        for i, (heads, ratio) in enumerate(zip(arch["heads"], arch["ratio"], strict=True))
        for name, cost in {"a": arch["width"] * heads, "b": arch["width"] ** 2 * ratio, "c": heads**2, "d": 7}.items()
    }
    last = {"last": arch["width"] + 100 * arch["heads"][-1]}  # of another block in every depth
    return {**blocks, **last, "stem": arch["stem"] * arch["width"], "constant": 11}


def test_every_arch_is_predicted() -> None:
    one = space()
    found = ItemTables(one, items)
    total = found.add_up([dict.fromkeys(found.slots, 1)])
    rng = np.random.default_rng(0)
    archs = [one.smallest, one.largest, *(one.sample(rng) for _ in range(300))]
    indices = np.stack([one.encode(arch) for arch in archs])
    assert total(indices)[:, 0].tolist() == [sum(items(arch).values()) for arch in archs]


def test_columns_are_weighted_sums_of_items() -> None:
    one = space()
    found = ItemTables(one, items)
    both = found.add_up([{"stem": 1, "constant": -2}, {"0.a": 3}])
    arch = one.sample(np.random.default_rng(1))
    assert both.of(arch).tolist() == [items(arch)["stem"] - 22, 3 * items(arch)["0.a"]]
    side = beside([both, found.add_up([{"constant": 1}])])
    assert side.of(arch).tolist() == [*both.of(arch), 11]


def test_a_dependency_that_single_changes_do_not_show_is_found() -> None:
    """Seen only where two other choices have middle options: the check on random archs must name the slot."""
    one = space({"a": [1, 2, 3], "b": [1, 2, 3], "c": [1, 2, 3]})

    def hidden(arch: Arch) -> dict[str, int]:
        return {"x": arch["c"] if arch["a"] == 2 and arch["b"] == 2 else 0}

    found = ItemTables(one, hidden)
    assert found.slots["x"] == (0, 1, 2)
    total = found.add_up([{"x": 1}])
    for a in (1, 2, 3):
        for b in (1, 2, 3):
            for c in (1, 2, 3):
                arch = one.arch({"a": a, "b": b, "c": c})
                assert total.of(arch)[0] == hidden(arch)["x"]


def test_few_archs_are_measured() -> None:
    """The number of slots counts, not the number of archs."""
    calls = []
    one = space({**CHOICES, "depth": [14]})
    ItemTables(one, lambda arch: calls.append(arch) or items(arch))
    assert len(calls) == len(set(calls)) < 150


def test_too_many_choices_at_once_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(module, "LARGEST_TABLE", 20)
    one = space({"a": [1, 2, 3], "b": [1, 2, 3], "c": [1, 2, 3]})
    with pytest.raises(UserError, match=r"depends on 3 choices at once \(a, b, c\)"):
        ItemTables(one, lambda arch: {"x": arch["a"] * arch["b"] * arch["c"]})
