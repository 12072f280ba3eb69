"""`nasmvt search` with bounds on work and another rule of sharing."""

from pathlib import Path

import pandas as pd
import pytest
import yaml


def test_what_the_budget_leaves_is_said_before_the_search(nasmvt, run) -> None:
    lines = nasmvt("search", run, "--budget", "150K", "--workers", 0, "--out", "a").splitlines()
    assert lines[0].startswith("networks of tiny have ")
    assert "archs are within the budget" in lines[1]


def test_work_is_bounded_and_written_down(nasmvt, run) -> None:
    table = pd.read_csv(run / "search" / "candidates.csv")
    assert "gmacs_cls" not in table
    nasmvt("search", run, "--workers", 0, "--max-gmacs", "cls=0.0009", "--max-gmacs", "det=1", "--out", "a")
    table = pd.read_csv("a/candidates.csv")
    assert (table.gmacs_cls <= 0.0009).all()
    assert (table.gmacs_det <= 1).all()
    best = yaml.safe_load(Path("a/best.yaml").read_text())
    assert best["max_macs"] == {"cls": 900_000, "det": 10**9}
    assert best["macs"]["cls"] <= 900_000


def test_a_range_is_kept_and_written_down(nasmvt, run) -> None:
    first = nasmvt("search", run, "--budget", "40%..80%", "--workers", 0, "--out", "a").splitlines()[0]
    largest = int(first.split(" to ")[1].split()[0].replace(",", ""))
    table = pd.read_csv("a/candidates.csv")
    assert table.parameters.between(0.4 * largest, 0.8 * largest).all()
    best = yaml.safe_load(Path("a/best.yaml").read_text())
    assert (best["at_least"], best["budget"]) == (-(-largest * 2 // 5), largest * 4 // 5)
    assert "belongs to another search (at_least" in nasmvt.refused(
        "search", run, "--budget", "80%", "--workers", 0, "--out", "a"
    )


@pytest.mark.parametrize(("rule", "layers"), [("all", {("cls", "det", "seg")}), ("none", {()})])
def test_a_rule_of_sharing_counts_and_is_what_retraining_gets(nasmvt, run, rule, layers) -> None:
    nasmvt("search", run, "--workers", 0, "--sharing", rule, "--out", "a")
    best = yaml.safe_load(Path("a/best.yaml").read_text())
    assert {tuple(tasks) for tasks in best["sharing"].values()} == layers
    assert best["sharing_rule"] == rule
    nasmvt("retrain", run, "--arch", "a/best.yaml")
    nasmvt("export", run, "--arch", "a/best.yaml", "--out", "model")
    printed = nasmvt("profile", "model", "--sharing", rule)
    assert f"{best['parameters']['total']:,}" in printed


def test_unmet_bounds_are_refused(nasmvt, run) -> None:
    assert "is below the least that a network of tiny needs" in nasmvt.refused(
        "search", run, "--max-gmacs", "det=0.00001"
    )
    assert "takes task=number such as det=400" in nasmvt.refused("search", run, "--max-gmacs", "det:4")
    assert "must be one of learned, all, none" in nasmvt.refused("search", run, "--sharing", "some")
