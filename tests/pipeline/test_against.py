"""Searches compared: real searches with invented metrics, and trainings that only add to them."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nasmvt import api
from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.files import write_text
from nasmvt.pipeline import against
from nasmvt.pipeline.against import Gain, compare_searches
from nasmvt.pipeline.archs import ArchFile
from nasmvt.pipeline.datasets import infos_of, open_data
from nasmvt.pipeline.experiment import Experiment
from nasmvt.pipeline.retrain import Chosen
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.supernet import build_supernet
from nasmvt.search.results import write_best
from tests.conftest import tiny_experiment

BUDGET = 25_000


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    """A run with one task and a search result; its supernet is not trained."""
    tasks = {"cls": tiny_experiment()["tasks"]["cls"]}
    experiment = parse(Experiment, tiny_experiment(tasks=tasks), "tiny")
    data = open_data(experiment)
    torch.manual_seed(0)
    supernet = build_supernet(experiment, infos_of(data))
    run = Run(tmp_path, experiment, {})
    arch = experiment.space.smallest.to_dict()
    write_text(run.best_path, str({"arch": arch, "budget": BUDGET, "complete": True}))
    trained: dict[str, Chosen] = {}
    monkeypatch.setattr(Run, "open_data", lambda self, *splits, **rest: data)
    monkeypatch.setattr(Run, "train_identity", {})
    monkeypatch.setattr(against, "load_supernet", lambda run, device: supernet)
    monkeypatch.setattr("nasmvt.search.evaluator.Evaluator.__call__", lambda self, arch, *unit: {"top1": worth(arch)})
    monkeypatch.setattr(against, "retrain", lambda run, chosen, *rest, **more: trained.update({chosen.name: chosen}))
    monkeypatch.setattr(
        against, "load_retrained", lambda run, name: SimpleNamespace(name=name, arch=trained[name].arch, tasks={})
    )
    monkeypatch.setattr(
        against, "evaluate_on_val", lambda chosen, *rest: {"cls": {"top1": worth(chosen.arch) + len(chosen.name)}}
    )
    return run


def worth(arch) -> float:
    return float(sum(arch["mlp_ratio"]) + sum(arch["num_heads"]) + arch["embed_dim"])


def compared(run, **changes):
    nothing = {"searching": nullcontext, "training": lambda title: nullcontext()}
    return compare_searches(
        run, device=torch.device("cpu"), **{"against": ["random"], "seeds": 2, **nothing, **changes}
    )


def test_searches_have_equal_evaluations_and_bounds_and_are_not_repeated(run, monkeypatch) -> None:
    monkeypatch.setattr("nasmvt.cost.feasible.NEAR", 0.8)  # the tiny space has few archs
    found = {item.name: item for item in compared(run)}
    assert list(found) == ["random", "random-near-budget", "predictor"]
    for name, item in found.items():
        assert item.evaluations == (6, 6)
        best = [run.path / "compare" / f"{name}-seed-{seed}" / "best.yaml" for seed in range(2)]
        results = [ArchFile.read(path) for path in best]
        assert item.inherited == tuple(result.score for result in results)
        assert all(result.parameters.count.total <= BUDGET for result in results)
        assert item.trained == tuple(score + len(f"compare-{name}-seed-0") for score in item.inherited)
    near = [ArchFile.read(run.path / "compare" / f"random-near-budget-seed-{seed}" / "best.yaml") for seed in range(2)]
    assert all(result.parameters.count.total >= 0.8 * BUDGET for result in near)
    own, rival = found["predictor"], found["random"]
    assert own.trained_gain is None
    differences = np.subtract(own.trained, rival.trained)
    assert rival.trained_gain.mean == pytest.approx(differences.mean())
    assert rival.trained_gain.low == pytest.approx(differences.min())
    assert rival.trained_gain.high == pytest.approx(differences.max())
    monkeypatch.setattr("nasmvt.search.evaluator.Evaluator.__call__", lambda *given: 1 / 0)
    again = api.compare_searches(run, seeds=2, device="cpu")
    assert {item.name: item for item in again} == found
    assert [item["name"] for item in json.loads(run.searches_path.read_text())] == list(found)


def test_near_a_budget_that_does_not_bind_is_near_the_largest_network(run) -> None:
    space = run.experiment.space
    write_text(run.best_path, str({"arch": space.smallest.to_dict(), "budget": 10**9, "complete": True}))
    assert [item.name for item in compared(run, seeds=1)] == ["random", "random-near-budget", "predictor"]
    near = ArchFile.read(run.path / "compare" / "random-near-budget-seed-0" / "best.yaml").parameters.count.total
    largest = ArchFile.read(run.path / "compare" / "predictor-seed-0" / "best.yaml").parameters.count.total
    assert 0.95 * largest <= near <= largest  # worth grows with size: its first generation has the largest


def test_an_id_that_looks_like_a_number_stays_a_text(tmp_path) -> None:
    write_best(tmp_path / "best.yaml", {"arch": {"depth": 4}, "id": "5070000e3952"})
    assert ArchFile.read(tmp_path / "best.yaml").id == "5070000e3952"


def test_the_runs_own_algorithm_is_no_rival(run) -> None:
    with pytest.raises(UserError, match="the run's own algorithm is predictor: compare it --against another one"):
        compared(run, against=["predictor"])


def test_a_gain_says_how_many_seeds_a_point_takes() -> None:
    gain = Gain.of([1.0, 3.0, 2.0, 2.0, 2.0])
    assert gain.mean == 2
    assert 1 < gain.low < 2 < gain.high < 3
    assert gain.seeds == 4  # (2.8 * 0.71) squared
    assert Gain.of([1.5]) == Gain(1.5, 1.5, 1.5, None)
