"""The parts of `benchmarks/evidence` that its answers rest on, and all of its questions in miniature."""

import json
import multiprocessing
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import evidence
import numpy as np
import pytest
import yaml
from evidence.__main__ import write
from evidence.ceiling import between_seeds
from evidence.laboratory import Laboratory, scores_of
from evidence.plan import Comparison, Plan
from evidence.questions import QUESTIONS
from evidence.statistics import difference, kendall, mean
from evidence.store import Store
from evidence.tables import estimate
from scipy import stats

from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.pipeline.supernet import build_supernet
from nasmvt.seeding import derive_seed
from tests.conftest import tiny_experiment


@pytest.mark.parametrize("ties", [False, True])
def test_tau_is_scipys(ties):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 20))
    if ties:
        first, second = first.round(), second.round()
    found = kendall(first, second + first)
    assert found.value == pytest.approx(stats.kendalltau(first, second + first).statistic)
    assert -1 <= found.low < found.value < found.high <= 1


def test_tau_of_several_pairs_of_rankings_is_their_mean():
    first, second = np.random.default_rng(0).normal(size=(2, 3, 12))
    found = kendall(first, first + second)
    expected = np.mean([stats.kendalltau(x, x + y).statistic for x, y in zip(first, second, strict=True)])
    assert found.value == pytest.approx(expected)
    assert found.low < found.value < found.high


def test_the_ceiling_is_the_mean_over_all_ways_to_halve_the_seeds():
    results = [{"cls": values} for values in np.random.default_rng(0).normal(size=(4, 10))]
    by_seed = [result["cls"] for result in results]
    halves = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
    taus = [stats.kendalltau(*(sum(by_seed[seed] for seed in half) for half in pair)).statistic for pair in halves]
    assert between_seeds(results)["cls"]["value"] == pytest.approx(np.mean(taus))


def test_tau_of_equal_values_is_undefined():
    found = kendall([1, 1, 1], [1, 2, 3])
    assert (found.value, found.low) == (None, None)
    assert estimate(found.to_dict()) == "undefined"


def test_the_interval_of_tau_covers_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    truth = 2 / np.pi * np.arcsin(0.8)  # of a bivariate normal distribution with correlation 0.8
    for seed in range(30):
        first, noise = rng.normal(size=(2, 24))
        found = kendall(first, 0.8 * first + 0.6 * noise, seed)
        hits += found.low <= truth <= found.high
    assert 25 <= hits <= 30


def test_the_interval_of_a_mean_is_scipys():
    values = np.random.default_rng(0).normal(size=40)
    found = mean(values)
    low, high = stats.bootstrap([values], np.mean, method="percentile", n_resamples=4000).confidence_interval
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high), abs=0.03)
    assert mean([3.0]).low is None


def test_the_interval_of_a_difference_covers_as_often_as_it_says():
    rng, hits = np.random.default_rng(1), 0
    for seed in range(100):
        found = difference(rng.normal(3, 1, size=40), rng.normal(1, 2, size=30), seed)
        hits += found.low <= 2 <= found.high
    assert 88 <= hits <= 99
    assert difference([3, 5], [1]).value == 3


def test_a_unit_is_computed_once_and_a_broken_line_is_dropped(tmp_path):
    calls = []
    store = Store(tmp_path, {"plan": 1})
    for _ in range(2):
        assert store.get("a/1", lambda: calls.append("a") or {"x": 1.5}) == {"x": 1.5}
    with store.path.open("a") as file:
        file.write('{"key": "b/1", "val')
    again = Store(tmp_path, {"plan": 1})
    assert again.get("a/1", lambda: calls.append("a")) == {"x": 1.5}
    assert again.get("b/1", lambda: calls.append("b") or 2) == 2
    assert Store(tmp_path, {"plan": 1}).get("b/1", lambda: calls.append("b")) == 2
    assert calls == ["a", "b"]
    assert again.spent()["a"]["units"] == 1
    with pytest.raises(UserError, match="other settings"):
        Store(tmp_path, {"plan": 2})


def _add_units(folder, started):
    store = Store(folder, {})
    started.wait()

    def slowly(number):
        time.sleep(0.005)
        return number

    for number in range(20):
        inner = partial(store.get, f"inner/{number // 2}", partial(slowly, number // 2))
        store.get(f"unit/{number}", inner)


def test_processes_share_a_folder_and_compute_no_unit_twice(tmp_path):
    context = multiprocessing.get_context("fork")
    started = context.Barrier(3)
    processes = [context.Process(target=_add_units, args=(tmp_path, started)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    lines = (tmp_path / "units.jsonl").read_text().splitlines()
    keys = [json.loads(line)["key"] for line in lines[1:]]
    assert sorted(keys) == sorted([f"unit/{number}" for number in range(20)] + [f"inner/{n}" for n in range(10)])
    store = Store(tmp_path, {})
    assert [store.get(f"unit/{number}", list) for number in range(20)] == [number // 2 for number in range(20)]


def test_the_time_of_a_unit_within_another_is_counted_once(tmp_path, monkeypatch):
    store, clocks = Store(tmp_path, {}), np.zeros(2)
    monkeypatch.setattr("evidence.store._clocks", clocks.copy)

    def work(seconds, *within):
        for key in within:
            store.get(key, lambda: work(20))
        clocks[:] += seconds

    store.get("outer/1", lambda: work(1, "inner/1", "inner/2"))
    store.get("outer/2", lambda: work(3))
    assert {kind: spent["seconds"] for kind, spent in store.spent().items()} == {"inner": 40, "outer": 4}


class Pretended(Laboratory):
    """A laboratory that trains nothing: results follow from sizes, with noise of the key."""

    def _pretend(self, *key):
        size, noise = self.size(key[0]), np.random.default_rng(derive_seed(*map(str, key))).normal(size=3)
        return {
            name: {task.primary: np.log(size) + 0.1 * value}
            for (name, task), value in zip(self.run.tasks.items(), noise, strict=True)
        }

    def _train(self, key, arch, seed, start, steps, sharing, tasks):
        found = self._pretend(arch, seed, steps)
        return {name: found[name] for name in tasks or found}

    def _train_shortly(self, key, variant, arch, steps):
        return self._pretend(arch, variant.name, steps)

    def _inherit(self, variant, arch, rule, compared, tasks):
        found = self._pretend(arch, variant.name)
        return {name: found[name] for name in tasks or found}

    def supernet(self, variant, tasks=()):
        name = "-".join(tasks)
        if name not in self._supernets:
            run = self._run_of(tuple(tasks))
            self._supernets[name] = run, build_supernet(run.experiment, run.infos)
        return self._supernets[name]

    def _train_supernet(self, name, variant, tasks):
        scores = scores_of(self.supernet(variant, tasks)[1])
        moved = np.random.default_rng(variant.seed).normal(size=len(scores))
        return {"scores": {layer: 0.5 + 0.1 * by for layer, by in zip(scores, moved, strict=True)}}


PLAN = {
    "archs": 6,
    "seeds": 2,
    "equal_archs": 4,
    "lengths": [0.5, 1],
    "comparisons": [{"images": 2, "recalibration_images": 4}, {"recalibration_images": 2}],
    "short_steps": [1],
    "retrain_steps": [1, 2],
    "retrain_archs": 2,
    "search_seeds": 2,
    "rivals": 1,
    "longer_evaluations": 12,
    "sharing_seeds": 2,
    "budget": 0.9,
    "sharing_budgets": [0.7, 0.95],
}


def tiny_plan():
    return parse(Plan, {**PLAN, "experiment": tiny_values()}, "the test")


def tiny_values():
    values = tiny_experiment()
    values["training"] |= {"steps": 4, "evaluation_images": 1}
    values["retrain"] |= {"steps": 2, "evaluation_images": 1}
    return values


@pytest.fixture(scope="module")
def pretended(tmp_path_factory):
    return Pretended(tiny_plan(), tmp_path_factory.mktemp("laboratory"))


def test_every_question_is_answered_in_tables_and_pictures(pretended):
    for name, ask in QUESTIONS.items():
        write(pretended, name, ask(pretended))
    answers = json.loads((pretended.folder / "answers.json").read_text())
    assert set(answers) == {*QUESTIONS, "spent"}
    assert answers["ceiling"]["between_seeds"]["T-score"]["value"] > 0.5  # size explains what there is
    assert answers["search"]["algorithms"]["predictor"]["default_minus_it"]["value"] == 0
    for curves in (found["curves"] for found in answers["longer_search"]["algorithms"].values()):
        assert {len(curve) for curve in curves} == {12}
    not_searched = answers["search"]["not_searched"]
    assert len(not_searched["of equal size"]["results"]) == 4
    assert not_searched["within the bound"]["winners_minus_it"]["low"] is not None
    tight, wide = answers["sharing"]
    assert tight["bound"] < wide["bound"]
    assert set(wide["results"]) - set(tight["results"]) == {"separate"}
    for found in (tight, wide):
        sizes = {way: [row["parameters"] for row in rows] for way, rows in found["results"].items()}
        assert all(0 < size <= found["bound"] for way in sizes for size in sizes[way])
    results = answers["scores"]["results"]
    for learned, random, shared, none in zip(*results.values(), strict=True):
        assert abs(random["parameters"] / learned["parameters"] - 1) <= 0.025
        assert shared["parameters"] < learned["parameters"] < none["parameters"]
    text = (pretended.folder / "tables.md").read_text()
    assert all(f"## {name}" in text for name in answers)
    assert {path.stem for path in pretended.folder.glob("*.png")} == {*QUESTIONS} - {
        "comparing",
        "sampling",
        "after_training",
        "scores",
        "sharing",
    }


def test_archs_are_spread_or_of_equal_size(pretended):
    sizes = [pretended.size(arch) for arch in pretended.spread]
    assert sizes == sorted(sizes)
    assert len({*pretended.spread}) == 6
    equal = [pretended.size(arch) for arch in pretended.equal]
    assert max(equal) <= 1.031 * min(equal)


def test_a_laboratory_goes_on_where_it_was(tmp_path, monkeypatch):
    first = Laboratory(tiny_plan(), tmp_path)
    arch = first.space.smallest
    found = [first.result(arch, 1), first.result(arch, 1, start=first.base)]
    inherited, after = first.inherited(first.base, arch), first.after_training(first.base, arch, 1)
    assert inherited != first.inherited(first.base, arch, compared=Comparison(recalibration_images=0))
    again = Laboratory(tiny_plan(), tmp_path)
    monkeypatch.setattr("evidence.laboratory.retrain", None)  # nothing is trained anew
    monkeypatch.setattr("evidence.laboratory.Evaluator", None)
    assert [again.result(arch, 1), again.result(arch, 1, start=again.base)] == found
    assert again.inherited(again.base, arch) == inherited
    assert again.after_training(again.base, arch, 1) == after


@pytest.mark.parametrize("name", ["drawn", "quick", "real", "real_photographs", "real_sharing"])
def test_shipped_plans_are_valid(name):
    plan = Plan.read(Path(evidence.__file__).with_name(f"{name}.yaml"))
    assert plan.experiment.retrain.steps in plan.retrain_steps


def test_processes_finish_what_they_began_and_the_command_says_why_the_rest_cant_be_answered(tmp_path):
    experiment = tiny_values()
    experiment["tasks"] = {"cls": experiment["tasks"]["cls"]}
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    plan, out = tmp_path / "plan.yaml", tmp_path / "out"
    plan.write_text(yaml.safe_dump({**PLAN, "experiment": "experiment.yaml", "archs": 4, "equal_archs": 1000}))
    asked = ["--plan", plan, "--out", out, "--processes", 2, "--only", "ceiling,ranking_at_equal_size"]
    words = [sys.executable, "-m", "evidence", *map(str, asked)]
    done = subprocess.run(words, cwd=Path(evidence.__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("equal_archs wants 1000 archs")
    assert "Traceback" not in done.stderr
    kinds = [json.loads(line)["key"].partition("/")[0] for line in (out / "units.jsonl").read_text().splitlines()[1:]]
    assert kinds == ["result"] * 8
