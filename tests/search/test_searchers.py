import random
import sys
from pathlib import Path

import numpy as np
import pytest

from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.search import EvolutionSearcher, RandomSearcher, SearchConfig, make_searcher
from nasmvt.search.pareto import hypervolume
from tests.search.toys import LARGE, SMALL, every_arch, fitness, make_space, play, size, small_config, within

EVERY = pytest.mark.parametrize("algorithm", ["evolution", "predictor", "random"])


def searcher(algorithm: str = "evolution", seed: int = 0, budget: float = 300, choices=LARGE, **changes):
    config = small_config(algorithm=algorithm, **changes)
    return make_searcher(config, within(budget, make_space(choices)), seed)


def test_make_searcher() -> None:
    assert type(searcher("evolution")) is EvolutionSearcher
    assert type(searcher("random")) is RandomSearcher


@EVERY
@pytest.mark.parametrize("budget", [64, 80, 300, 10_000])  # 64 is the smallest arch itself
def test_never_over_budget_and_never_twice(algorithm, budget) -> None:
    asked = play(searcher(algorithm, budget=budget))
    assert asked
    assert all(size(arch) <= budget for arch in asked)
    assert len(asked) == len(set(asked))


@EVERY
def test_all_evaluations_are_made(algorithm) -> None:
    one = searcher(algorithm)
    assert len(play(one)) == one.total == one.config.evaluations == 32
    assert len(one.best()) == 32


@EVERY
def test_a_small_space_is_exhausted(algorithm) -> None:
    budget = 6
    expected = {arch for arch in every_arch(make_space(SMALL)) if size(arch) <= budget}
    one = searcher(algorithm, budget=budget, choices=SMALL)
    assert set(play(one)) == expected
    assert one.done
    assert one.total == len(expected)


@EVERY
def test_one_seed_one_search(algorithm) -> None:
    assert play(searcher(algorithm, seed=1)) == play(searcher(algorithm, seed=1))
    assert play(searcher(algorithm, seed=1)) != play(searcher(algorithm, seed=2))


@EVERY
@pytest.mark.parametrize("ask", [1, 5, 100])
def test_neither_the_order_of_scores_nor_the_size_of_questions_matters(algorithm, ask) -> None:
    def coarse(arch):
        return round(fitness(arch) / 10)  # many equal scores

    reference, other = searcher(algorithm), searcher(algorithm)
    assert play(reference, score=coarse) == play(other, ask=ask, reverse=True, score=coarse)
    assert reference.best() == other.best()


@EVERY
def test_many_workers_that_finish_at_random(algorithm) -> None:
    """Scores that come one by one in a random order, while more archs are asked for."""
    one, under_way, asked = searcher(algorithm), [], []
    shuffle = random.Random(0)
    while not one.done:
        new = one.ask(5 - len(under_way))
        asked += new
        under_way += new
        if under_way:
            arch = under_way.pop(shuffle.randrange(len(under_way)))
            one.tell([(arch, [fitness(arch)])])
    assert asked == play(searcher(algorithm))


def test_a_generation_waits_for_the_one_before() -> None:
    one = searcher()
    first = one.ask(100)
    assert len(first) == 8
    one.tell([(arch, [fitness(arch)]) for arch in first[:-1]])
    assert one.ask(1) == []
    assert not one.done
    one.tell([(first[-1], [fitness(first[-1])])])
    second = one.ask(100)
    assert len(second) == 8
    assert {one.generation(arch) for arch in first} == {0}
    assert {one.generation(arch) for arch in second} == {1}


@pytest.mark.parametrize("algorithm", ["evolution", "predictor", "nsga2"])
@pytest.mark.parametrize(("budget", "top"), [(300, 300), (10_000, 40 * 4 * 8)])
def test_the_first_generation_begins_with_what_a_search_has_to_beat(algorithm, budget, top) -> None:
    toy = make_space()
    named = {"wide": {"depth": 4, "width": 40, "heads": [1] * 4}, "too large": toy.largest.to_dict() | {"width": 32}}
    space = toy.model_copy(update={"archs": named})
    first = make_searcher(small_config(algorithm=algorithm, population=12), within(budget, space), 0).ask(12)
    given = [*map(space.named, named), space.largest, *([space.smallest] if algorithm == "nsga2" else [])]
    given = [arch for arch in given if size(arch) <= budget]
    assert first[: len(given)] == given
    near = sum(size(arch) >= 0.95 * top for arch in first[len(given) :])
    assert near < 3 if algorithm == "nsga2" else round(0.5 * (12 - len(given))) <= near < 12 - len(given)


def test_without_a_part_near_the_bounds_the_first_generation_is_drawn_anywhere() -> None:
    shares = [
        np.mean([size(arch) >= 0.95 * 300 for arch in searcher(seed=seed, population=40, near_bounds=part).ask(40)])
        for seed in range(5)
        for part in (0.0, 0.5)
    ]
    assert all(near > anywhere + 0.3 for anywhere, near in zip(shares[::2], shares[1::2], strict=True))


def test_later_generations_descend_from_the_best_of_all_so_far() -> None:
    """Without mutation and random archs, every gene of a child is one of the parents'."""
    one = searcher(population=6, parents=2, mutants=0, crossovers=6, near_bounds=0, budget=10_000)
    first = one.ask(6)
    one.tell([(arch, [fitness(arch)]) for arch in first])
    parents = [arch for arch, _ in one.best(2)]
    for child in one.ask(6):
        assert child["width"] in {parent["width"] for parent in parents}
        assert child["depth"] in {parent["depth"] for parent in parents}


def test_random_archs_fill_a_generation() -> None:
    one = searcher(mutants=1, crossovers=1)
    assert len(play(one)) == 32


def test_a_single_parent_has_no_crossovers_but_the_search_goes_on() -> None:
    assert len(play(searcher(parents=1, mutants=0, crossovers=8))) == 32


def test_the_best_come_first_and_not_a_number_last() -> None:
    one = searcher("random", candidates=3)
    low, bad, high = one.ask(3)
    one.tell([(bad, [float("nan")]), (low, [1.0]), (high, [2.0])])
    assert [arch for arch, _ in one.best()] == [high, low, bad]
    assert one.best(1) == [(high, 2.0)]


def test_a_score_nobody_asked_for_is_an_error() -> None:
    one = searcher()
    with pytest.raises(KeyError):
        one.tell([(one.space.largest, [1.0])])


@pytest.mark.parametrize("seed", range(5))
def test_evolution_finds_better_than_random(seed) -> None:
    sizes = {"population": 20, "parents": 5, "generations": 8, "mutants": 10, "crossovers": 10}
    found = {}
    for algorithm in ("evolution", "random"):
        config = SearchConfig(algorithm=algorithm, **sizes)
        one = make_searcher(config, within(500, make_space(LARGE)), seed)
        assert len(play(one, ask=4)) == 160
        found[algorithm] = one.best(1)[0][1]
    assert found["evolution"] > found["random"]


def noise(arch) -> float:
    return int(arch.id, 16) % 1000 / 10


def test_a_surrogate_that_is_right_finds_more_and_one_that_is_wrong_steps_aside() -> None:
    sizes = {"population": 15, "parents": 5, "generations": 4, "mutants": 8, "crossovers": 7, "budget": 500}
    found = {}
    for algorithm in ("evolution", "predictor"):
        one = searcher(algorithm, **sizes)
        play(one)
        found[algorithm] = sorted(score for _, score in one.best(20))
    assert found["predictor"] > found["evolution"]
    assert one.notes(0) == {}
    assert one.notes(1)["correlation"] > 0.2
    lost = searcher("predictor", **sizes, least_correlation=0.5)
    assert play(lost, score=noise) == play(searcher("evolution", **sizes), score=noise)
    assert lost.notes(3)["correlation"] < 0.5


def test_rounding_of_another_machine_decides_no_rank(monkeypatch) -> None:
    from sklearn.linear_model import BayesianRidge

    class Elsewhere(BayesianRidge):
        def predict(self, features):
            return super().predict(features) + 1e-9 * np.random.default_rng(0).normal(size=len(features))

    sizes = {"population": 15, "parents": 5, "generations": 4, "mutants": 8, "crossovers": 7, "budget": 500}
    here = play(searcher("predictor", **sizes), score=lambda arch: arch["width"])  # so all else is a tie
    monkeypatch.setattr("sklearn.linear_model.BayesianRidge", Elsewhere)
    assert play(searcher("predictor", **sizes), score=lambda arch: arch["width"]) == here


def test_a_surrogate_survives_figures_that_are_none() -> None:
    one = searcher("predictor", screening=2, generations=3)
    while archs := one.ask(4):
        one.tell(
            [(arch, [float("nan") if noise(arch) < 30 else fitness(arch)]) for arch in archs],
            {arch: [float("nan"), fitness(arch)] for arch in archs},
        )
    assert one.done


@pytest.mark.parametrize("algorithm", ["evolution", "predictor", "nsga2"])
def test_a_search_that_begins_with_another_begins_with_its_best(algorithm) -> None:
    archs = play(searcher("random", seed=5, budget=10_000))
    values = {arch: [fitness(arch)] for arch in archs}
    one = searcher(algorithm, budget=300)
    one.know(values, values)
    within_budget = sorted((arch for arch in archs if size(arch) <= 300), key=fitness, reverse=True)
    assert set(within_budget) < set(archs)
    first = one.ask(100)
    assert {fitness(arch) for arch in first} >= {fitness(arch) for arch in within_budget[:8]}
    assert len(first) == 8


def test_random_search_makes_nothing_of_another_search() -> None:
    with pytest.raises(UserError, match="random can't begin with what another search found: leave out --init"):
        searcher("random").know({}, {})


def test_without_scikit_learn_the_way_out_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(UserError, match="needs scikit-learn: pip install scikit-learn"):
        searcher("predictor")


def two_values(arch):
    return [fitness(arch), -float(size(arch))]


def play_for_a_front(one, ask: int = 5) -> np.ndarray:
    while archs := one.ask(ask):
        one.tell([(arch, two_values(arch)) for arch in archs])
    return np.array([two_values(arch) for arch, _ in one.best()])


@pytest.mark.parametrize("seed", range(3))
def test_nsga2_finds_a_better_front_than_random(seed) -> None:
    sizes = {"population": 20, "generations": 8, "mutants": 10, "crossovers": 10}
    volumes = {}
    for algorithm in ("nsga2", "random"):
        one = make_searcher(SearchConfig(algorithm=algorithm, **sizes), within(500, make_space(LARGE)), seed)
        values_NM = play_for_a_front(one)
        assert len(values_NM) == 160
        volumes[algorithm] = hypervolume((values_NM + np.array([0, 500])) / [60, 500])
    assert volumes["nsga2"] > volumes["random"]


def test_nsga2_depends_on_neither_the_size_of_questions_nor_the_order() -> None:
    first, second = (searcher("nsga2", seed=3) for _ in range(2))
    assert play_for_a_front(first, 1).tolist() == play_for_a_front(second, 7).tolist()


def test_evolution_refuses_several_objectives() -> None:
    with pytest.raises(UserError, match="the objectives are t-score, parameters: use --algorithm nsga2"):
        searcher("evolution", minimize=("parameters",))
    assert searcher("random", minimize=("parameters",))


def test_an_algorithm_of_the_users_own(tmp_path, monkeypatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")
    (tmp_path / "my_search.py").write_text(page.split("```python\n")[1].split("```")[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    asked = play(searcher("my_search:climb"))
    assert len(asked) == 32
    assert max(map(fitness, asked)) > max(map(fitness, play(searcher("random"))))
    with pytest.raises(UserError, match=r"unknown search algorithm 'evolutoin'; did you mean 'evolution'\?"):
        parse(SearchConfig, {"algorithm": "evolutoin"}, "the settings")
