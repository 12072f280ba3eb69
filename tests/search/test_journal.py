import json

import pytest

from nasmvt.errors import UserError
from nasmvt.search import Evaluation, Journal
from tests.search.toys import make_space

HEADER = {
    "space": "toy",
    "seed": 0,
    "budget": None,
    "config": {"population": 5, "images": None},
    "weights": "abc",
}
METRICS = {"top1": 0.1 + 0.2, "top5": float("nan")}


@pytest.fixture
def arch():
    return make_space().smallest


def begun(folder, **changes) -> Journal:
    journal = Journal(folder / "journal.jsonl")
    journal.begin({**HEADER, **changes})
    return journal


def evaluation(arch, task: str = "cls") -> Evaluation:
    return Evaluation(arch=arch, task=task, metrics=METRICS, seconds=1.0)


def test_evaluations_are_found_again_exactly(tmp_path, arch) -> None:
    journal = begun(tmp_path / "search")
    assert journal.find(arch, "cls") is None
    journal.add_evaluation(evaluation(arch))
    for one in (journal, begun(tmp_path / "search")):
        assert one.find(arch, "cls")["top1"] == METRICS["top1"]
        assert one.find(arch, "det") is None
        assert one.find(make_space().largest, "cls") is None


@pytest.mark.parametrize("torn", ['{"kind": "evaluation", "id"', '{"kind": "evaluation"}'])
def test_a_torn_last_line_is_dropped(tmp_path, arch, torn) -> None:
    begun(tmp_path).add_evaluation(evaluation(arch))
    path = tmp_path / "journal.jsonl"
    with path.open("a") as file:
        file.write(torn)
    journal = begun(tmp_path)
    assert journal.find(arch, "cls")
    journal.add_evaluation(evaluation(arch, "det"))
    assert begun(tmp_path).find(arch, "det")
    assert [json.loads(line).get("task") for line in path.read_text().splitlines()] == [None, "cls", "det"]


def test_a_torn_header_starts_anew(tmp_path, arch) -> None:
    (tmp_path / "journal.jsonl").write_text('{"format": 1, "spa')
    begun(tmp_path).add_evaluation(evaluation(arch))
    assert begun(tmp_path).find(arch, "cls")


def test_damage_in_the_middle_is_refused(tmp_path, arch) -> None:
    begun(tmp_path)
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write("{{\n")
    with pytest.raises(UserError, match=r"line 2 of .*journal.jsonl is damaged"):
        begun(tmp_path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"budget": 5}, "budget is None there and 5 here"),
        ({"weights": "xyz"}, "weights is 'abc' there and 'xyz' here"),
        ({"config": {"population": 6, "images": None}}, "config.population is 5 there and 6 here"),
    ],
)
def test_another_search_is_refused(tmp_path, changes, named) -> None:
    begun(tmp_path)
    with pytest.raises(UserError, match=named):
        begun(tmp_path, **changes)
    begun(tmp_path)
