"""Races: who is dropped, and that the search finds what it finds without one."""

import json

import numpy as np
import pytest

from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.search import InProcessPool, Objective, SearchConfig
from nasmvt.search.race import RUNGS, Race, hopeless_of
from tests.search.test_run import PRIMARIES, Search
from tests.search.toys import SMALL, every_arch, make_space


@pytest.fixture(autouse=True)
def _costs(tiny_costs) -> None:
    Search.costs = tiny_costs


def scores(*means: float, noise: float = 0.1, common: float = 10.0, blocks: int = 6) -> np.ndarray:
    """Return scores (N, B) of archs by their means: what is hard for all differs far more than the archs."""
    rng = np.random.default_rng(0)
    hard_B = common * rng.normal(size=blocks)
    return np.array(means)[:, None] + hard_B + noise * rng.normal(size=(len(means), blocks))


def test_who_is_clearly_worse_than_what_is_kept_is_hopeless() -> None:
    assert hopeless_of(scores(50, 49, 40, 39), kept=2).tolist() == [False, False, True, True]
    assert hopeless_of(scores(50, 49, 40, 39), kept=3).tolist() == [False, False, False, True]


def test_nobody_is_hopeless_within_the_noise_or_among_those_kept() -> None:
    assert not hopeless_of(scores(50, 49, 48, 47, noise=10), kept=1, confidence=0.999).any()
    assert not hopeless_of(scores(50, 40), kept=2).any()
    assert not hopeless_of(scores(50, 40, blocks=1), kept=1).any()


def test_a_race_goes_on_with_those_that_are_left_and_remembers_them() -> None:
    archs = every_arch(make_space(SMALL))[:5]
    race = Race(Objective({"cls": 1.0}, {"cls": "top1"}), kept=1)
    worth = dict(zip(archs, (10.0, 20.0, 30.0, 30.1, 25.0), strict=True))

    def run(rung: int) -> list:
        for arch in race.live:
            race.learn(arch, "cls", [worth[arch] + block % 2 + 0.01 * block * len(race.live) for block in RUNGS[rung]])
        return race.end_rung()

    for arch in archs[:3]:
        race.enter(arch)
    assert run(0) == archs[:2]
    assert not race.over
    assert race.partial(archs[0])["cls"]["top1"] == pytest.approx(10.5, abs=1)
    assert run(1) == []
    assert race.over
    assert race.finish() == [archs[2]]
    for arch in archs[3:]:
        race.enter(arch)
    assert run(0) == [archs[4]]  # worse than the one of the first race


class Racing:
    """Gives each arch a worth, that of a block with noise; counts."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, int | None]] = []

    def __call__(self, arch, task, rung=None):
        self.calls.append((arch.id, task, rung))
        worth = sum(arch["mlp_ratio"]) + arch["embed_dim"] / 8
        if rung is None:
            return {PRIMARIES[task]: worth}
        noise = [np.random.default_rng((int(arch.id, 16), block)).normal() / 10 for block in RUNGS[rung]]
        return {str(block): worth + block + off for block, off in zip(RUNGS[rung], noise, strict=True)}


SIZES = {"population": 12, "parents": 3, "generations": 3, "mutants": 6, "crossovers": 6}


@pytest.mark.parametrize("algorithm", ["evolution", "random"])
def test_the_winner_is_that_of_the_whole_search_for_less(supernet, tmp_path, algorithm) -> None:
    found, calls = {}, {}
    for race in (False, True):
        evaluate = Racing()
        one = Search(supernet, tmp_path / str(race), race=race, algorithm=algorithm, **SIZES)
        found[race] = one.run(InProcessPool(evaluate))
        calls[race] = [rung for _, _, rung in evaluate.calls]
    assert found[True][0] == found[False][0]
    assert calls[True].count(None) < 0.6 * calls[False].count(None)
    lines = [json.loads(line) for line in (tmp_path / "True" / "journal.jsonl").read_text().splitlines()]
    dropped = {line["id"] for line in lines if line.get("kind") == "dropped"}
    assert dropped
    assert not dropped & {candidate.arch.id for candidate in found[True]}
    assert all(line["blocks"] in (3, 6) and "score" not in line for line in lines if line.get("kind") == "dropped")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "nsga2", "minimize": ["parameters"]}, "nsga2 is to find t-score, parameters: leave out --race"),
        ({"algorithm": "evolution", "maximize": ["cls"]}, "evolution is to find cls: leave out --race"),
        ({"algorithm": "predictor"}, "predictor is to find t-score: leave out --race"),
    ],
)
def test_searches_that_can_not_race_are_refused(supernet, tmp_path, changes, message) -> None:
    with pytest.raises(UserError, match=message):
        Search(supernet, tmp_path, race=True, **changes).run(InProcessPool(Racing()))


def test_a_race_is_part_of_the_identity_and_a_bad_value_is_refused() -> None:
    assert "race" not in SearchConfig().identity()
    assert SearchConfig(race=True).identity()["race"] is True
    with pytest.raises(UserError, match=r"bad value for 'race'"):
        parse(SearchConfig, {"race": "perhaps"}, "experiment.yaml")
