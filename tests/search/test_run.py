"""The driver, with real counting and invented metrics."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from nasmvt.config import parse
from nasmvt.cost import Budget, Costs
from nasmvt.errors import UserError
from nasmvt.search import (
    Candidate,
    InProcessPool,
    Journal,
    Objective,
    Objectives,
    Pool,
    SearchConfig,
    make_searcher,
    search,
)
from nasmvt.space import Sharing
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.task import Task
from tests.search.toys import Toy, search_files

PRIMARIES = {"cls": "top1", "det": "box_map", "seg": "miou"}


class Named(Toy):
    """Gives each task its own metric, and counts."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def evaluate(self, arch, task, rung=None):
        self.calls.append((arch.id, task))
        return {PRIMARIES[task]: sum(arch["mlp_ratio"]) + len(task), "other": 0.5}


class Shuffled(InProcessPool):
    """Gives results back in another order than units came, as workers do."""

    capacity = 5

    def result(self):
        self._units.rotate(2)
        return super().result()


class Search:
    """One search over the tiny space."""

    costs: Costs
    """Of the tiny space, measured once."""

    def __init__(
        self, supernet, folder: Path, budget: int | None = None, seed: int = 0, init: Path | None = None, **changes
    ) -> None:
        self.supernet = supernet
        self.folder = folder
        self.costs = Search.costs.under(supernet.sharing())
        self.budget = Budget(budget)
        sizes = {"population": 5, "parents": 2, "generations": 2, "mutants": 3, "crossovers": 2}
        self.config = SearchConfig(**{**sizes, **changes})
        self.seed, self.init = seed, init
        self.toy = Named()
        self.heard: list[tuple[int, int | None, Candidate, Candidate]] = []

    def on_candidate(self, done, total, candidate, best) -> None:
        self.heard.append((done, total, candidate, best))

    def run(self, pool: Pool | None = None) -> list[Candidate]:
        searcher = make_searcher(self.config, self.budget.feasible(self.costs), self.seed)
        score = Objective({"cls": 1.0, "det": 1.0, "seg": 2.0}, PRIMARIES)
        objectives = Objectives(score, self.config.maximize, self.config.minimize)
        pool = pool or InProcessPool(self.toy.evaluate)
        journal, files = search_files(self.folder)
        return search(
            self.supernet, searcher, pool, objectives, self.costs, self.budget, journal, files, self, init=self.init
        )


@pytest.fixture(autouse=True)
def _costs(tiny_costs) -> None:
    Search.costs = tiny_costs


@pytest.fixture
def middle(supernet, tiny_costs) -> int:
    totals = tiny_costs.under(supernet.sharing()).totals
    return int(totals.of(supernet.space.smallest)[0] + totals.of(supernet.space.largest)[0]) // 2


def test_candidates_are_ranked_and_complete(supernet, tmp_path, middle) -> None:
    one = Search(supernet, tmp_path, middle)
    candidates = one.run()
    assert len(candidates) == 10
    scores = [candidate.score for candidate in candidates]
    assert scores == sorted(scores, reverse=True)
    for candidate in candidates:
        ratio = sum(candidate.arch["mlp_ratio"])
        assert candidate.score == 4 * (ratio + 3)  # seg counts twice
        assert candidate.parameters == one.costs.parameters(candidate.arch)
        assert candidate.parameters.total <= middle
        assert list(candidate.metrics) == ["cls", "det", "seg"]
    assert {candidate.generation for candidate in candidates} == {0, 1}


def test_the_listener_hears_every_candidate(supernet, tmp_path) -> None:
    one = Search(supernet, tmp_path)
    candidates = one.run()
    assert [done for done, *_ in one.heard] == list(range(1, 11))
    assert {total for _, total, *_ in one.heard} == {10}
    assert one.heard[-1][3] == candidates[0]


def test_results_do_not_depend_on_the_order_of_the_work(supernet, tmp_path) -> None:
    first, second = Search(supernet, tmp_path / "a"), Search(supernet, tmp_path / "b")
    assert first.run() == second.run(Shuffled(second.toy.evaluate))


def test_a_second_run_evaluates_nothing(supernet, tmp_path) -> None:
    candidates = Search(supernet, tmp_path).run()
    before = (tmp_path / "journal.jsonl").read_text()
    again = Search(supernet, tmp_path)
    assert again.run() == candidates
    assert again.toy.calls == []
    assert (tmp_path / "journal.jsonl").read_text() == before


def test_an_interrupted_search_goes_on(supernet, tmp_path) -> None:
    expected = Search(supernet, tmp_path / "whole").run()

    class Interrupted(InProcessPool):
        left = 20

        def result(self):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
            return super().result()

    first = Search(supernet, tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        first.run(Interrupted(first.toy.evaluate))
    assert len(pd.read_csv(tmp_path / "cut" / "candidates.csv")) == 6  # what there was is written
    second = Search(supernet, tmp_path / "cut")
    assert second.run() == expected
    assert len(first.toy.calls) + len(second.toy.calls) == 10 * 3
    assert not set(first.toy.calls) & set(second.toy.calls)
    for name in ("candidates.csv", "best.yaml"):
        assert (tmp_path / "cut" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_other_weights_are_refused(supernet, tmp_path) -> None:
    Search(supernet, tmp_path, algorithm="random", candidates=1).run()
    supernet.networks["cls"].backbone.norm.weight.data[0] += 1
    with pytest.raises(UserError, match="weights"):
        Search(supernet, tmp_path, algorithm="random", candidates=1).run()


def test_a_budget_below_the_smallest_is_refused(supernet, tmp_path) -> None:
    with pytest.raises(UserError, match="budget"):
        Search(supernet, tmp_path, 10).run()
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_evaluator_passes_through(supernet, tmp_path) -> None:
    def broken(arch, task, rung):
        raise UserError("fix it")

    with pytest.raises(UserError, match="fix it"):
        Search(supernet, tmp_path).run(InProcessPool(broken))


def test_the_table(supernet, tmp_path) -> None:
    candidates = Search(supernet, tmp_path).run()
    table = pd.read_csv(tmp_path / "candidates.csv")
    assert list(table.columns) == [
        *("rank", "score", "front", "parameters", "shared"),
        *("specific_cls", "specific_det", "specific_seg", "heads_cls", "heads_det", "heads_seg"),
        *("cls_top1", "det_box_map", "seg_miou"),
        *("depth", "embed_dim", "num_heads", "mlp_ratio"),
        *("id", "generation"),
    ]
    assert list(table["rank"]) == list(range(1, 11))
    assert table["score"].is_monotonic_decreasing
    first, best = table.iloc[0], candidates[0]
    assert first["id"] == best.arch.id
    assert first["parameters"] == best.parameters.total
    assert first["num_heads"] == " ".join(map(str, best.arch["num_heads"]))
    parts = [name for name in table.columns if name == "shared" or name.startswith(("specific_", "heads_"))]
    assert (table[parts].sum(axis=1) == table["parameters"]).all()


def test_the_best(supernet, tmp_path) -> None:
    best = Search(supernet, tmp_path).run()[0]
    content = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert supernet.space.arch(content["arch"]) == best.arch
    model = supernet.materialize(best.arch)
    assert Sharing.of(content["sharing"]) == model.sharing
    assert content["parameters"]["total"] == sum(p.numel() for p in model.parameters())
    assert content["space"] == "tiny"
    assert content["budget"] is None
    assert content["score"] == best.score
    assert content["metrics"]["cls"]["top1"] == best.metrics["cls"]["top1"]


def test_the_objective_reads_the_tasks(tasks) -> None:
    heavy = parse(TaskConfig, {**tasks["seg"].config.model_dump(), "score_weight": 0.5}, "seg")
    named = {**tasks, "seg": Task(name="seg", config=heavy, info=tasks["seg"].info)}
    objective = Objective.of(named)
    metrics = {name: {task.primary: 10.0} for name, task in named.items()}
    assert objective(metrics) == 25.0


def test_a_search_without_weights_is_refused() -> None:
    with pytest.raises(UserError, match="score_weight above 0"):
        Objective({"cls": 0.0}, {"cls": "top1"})


def test_default_config_fits_the_space() -> None:
    assert SearchConfig().per_generation == 50


def test_several_objectives(supernet, tmp_path, tiny_costs) -> None:
    settings = {"algorithm": "nsga2", "minimize": ("parameters", "gmacs:cls"), "generations": 3}
    one = Search(supernet, tmp_path, **settings)
    candidates = one.run()
    values = [(item.score, -item.parameters.total, -item.macs["cls"]) for item in candidates]
    table = pd.read_csv(tmp_path / "candidates.csv")
    assert table.gmacs_cls.tolist() == [item.macs["cls"] / 1e9 for item in candidates]
    for row, mine in zip(table.front, values, strict=True):
        beaten = any(all(a >= b for a, b in zip(other, mine, strict=True)) and other != mine for other in values)
        assert row != beaten
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()[1:]]
    volumes = {line["generation"]: line["hypervolume"] for line in lines if line["kind"] == "generation"}
    assert list(volumes) == [0, 1, 2]
    assert 0 < volumes[0] <= volumes[1] <= volumes[2] < 1
    again = Search(supernet, tmp_path, **settings)
    assert again.run() == candidates
    assert again.toy.calls == []
    header, found = Journal(tmp_path / "journal.jsonl").read(supernet.space)
    assert sorted(found, key=lambda item: -item.score) == sorted(candidates, key=lambda item: -item.score)
    assert header["config"]["minimize"] == ["parameters", "gmacs:cls"]


def test_with_one_objective_the_front_is_that_of_score_and_parameters(supernet, tmp_path) -> None:
    Search(supernet, tmp_path).run()
    table = pd.read_csv(tmp_path / "candidates.csv")
    on = table[table.front].sort_values("parameters")
    assert on.score.is_monotonic_increasing
    assert on.score.iloc[-1] == table.score.max()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"minimize": ("latency",)},
            "--minimize takes one of parameters, gmacs:cls, gmacs:det, gmacs:seg, latency:cls, .*, latency:seg, not",
        ),
        ({"maximize": ("clss",)}, r"--maximize takes one of t-score, cls, det, seg, not 'clss'; did you mean 'cls'\?"),
        ({"maximize": ("cls", "cls")}, "--maximize names 'cls' twice"),
    ],
)
def test_objectives_that_do_not_exist_are_refused(supernet, tmp_path, changes, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        Search(supernet, tmp_path, algorithm="random", **changes).run()


def test_a_hypervolume_compares_with_that_of_another_search(supernet, tiny_costs) -> None:
    """The scale is that of the space: the smallest arch with a perfect score would be 1."""
    costs = tiny_costs.under(supernet.sharing())
    objectives = Objectives(Objective({"cls": 2.0}, {"cls": "top1"}), minimize=("parameters",))

    def candidate(arch, top1: float) -> Candidate:
        count = costs.parameters(arch)
        return Candidate(arch=arch, parameters=count, metrics={"cls": {"top1": top1}}, score=2 * top1, generation=0)

    small, large = candidate(supernet.space.smallest, 25.0), candidate(supernet.space.largest, 75.0)
    assert objectives.shares([small, large], costs).tolist() == [[0.25, 1.0], [0.75, 0.0]]


def test_a_search_begins_with_the_evaluations_of_another(supernet, tmp_path) -> None:
    first = Search(supernet, tmp_path / "first", algorithm="random", candidates=6)
    found = first.run()
    settings = {"algorithm": "predictor", "population": 4}
    second = Search(supernet, tmp_path / "second", seed=1, init=tmp_path / "first" / "journal.jsonl", **settings)
    candidates = second.run()
    begun = [candidate for candidate in candidates if candidate.generation == 0]
    assert {candidate.score for candidate in begun} == {candidate.score for candidate in found[:4]}
    assert not {candidate.arch.id for candidate in begun} & {name for name, _ in second.toy.calls}
    lines = [json.loads(line) for line in (tmp_path / "second" / "journal.jsonl").read_text().splitlines()[1:]]
    assert sum(line.get("taken", False) for line in lines) == 18
    assert [line["correlation"] for line in lines if line["kind"] == "generation" and line["generation"]]
    again = Search(supernet, tmp_path / "second", seed=1, init=tmp_path / "first" / "journal.jsonl", **settings)
    (tmp_path / "first" / "journal.jsonl").unlink()  # what was taken over is kept
    assert again.run() == candidates
    assert again.toy.calls == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"images": 5},
            "begins with one of the same 'images', which is None in .* and 5 here: change it, or leave out",
        ),
        ({"algorithm": "random"}, "random can't begin with what another search found"),
    ],
)
def test_a_search_does_not_begin_with_one_that_does_not_fit(supernet, tmp_path, changes, sentence) -> None:
    Search(supernet, tmp_path / "first", algorithm="random", candidates=1).run()
    second = Search(supernet, tmp_path / "second", init=tmp_path / "first" / "journal.jsonl", **changes)
    with pytest.raises(UserError, match=sentence):
        second.run()
    assert not (tmp_path / "second" / "journal.jsonl").exists()
