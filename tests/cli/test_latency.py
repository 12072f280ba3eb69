"""`nasmvt measure-latency`, and a search that is bounded by what it found."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from nasmvt.pipeline import latency, latency_bound
from nasmvt.pipeline.latency import Effort

FEW = Effort(archs=8, held_out=2, rounds=1, passes=1)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Measure little, and in this process."""
    monkeypatch.setattr(latency, "apart", lambda work, *arguments: work(*arguments))
    monkeypatch.setattr(latency_bound, "Effort", lambda: FEW)
    monkeypatch.setattr(latency_bound, "CONFIRMING", FEW)


def test_a_search_is_bounded_by_latency(nasmvt, run) -> None:
    printed = nasmvt("search", run, "--workers", 0, "--max-latency", "cls=10s", "--device", "cpu", "--out", "a")
    assert "timing 10 networks of cls" in printed
    assert "the bound of 10,000 ms for cls does not bind" in printed
    best = yaml.safe_load(Path("a/best.yaml").read_text())
    assert best["max_latency"] == {"cls": 10**7}
    assert 0 < best["timed"]["cls"] < 10**7
    told, measured = (best[key]["cls"] / 1e3 for key in ("latency", "timed"))
    assert f"{told:.2f} ms by the table, {measured:.2f} ms measured" in printed
    table = pd.read_csv("a/candidates.csv")
    assert table.ms_cls.tolist()[0] == told
    assert Path("a/latency.json").read_text() == (run / "latency.json").read_text()

    again = nasmvt("search", run, "--workers", 0, "--max-latency", "cls=10s", "--out", "a")
    assert "timing" not in again
    assert yaml.safe_load(Path("a/best.yaml").read_text()) == best
    assert "ms for cls is below the least" in nasmvt.refused("search", run, "--max-latency", "cls=1us")
    assert "measured with threads 1, but threads 2 is asked for" in nasmvt.refused(
        "search", run, "--max-latency", "cls=10s", "--threads", 2
    )
    assert "the latency table has no task 'det'" in nasmvt.refused("search", run, "--max-latency", "det=10s")

    nasmvt("profile", run, "--arch", "smallest", "--latency-table", run / "latency.json", "--json", "p.json")
    assert json.loads(Path("p.json").read_text())["milliseconds"].keys() == {"cls"}
    nasmvt("search", run, "--workers", 0, "--algorithm", "nsga2", "--minimize", "latency:cls", "--out", "b")
    nasmvt("front", run, "--search", "b")
    assert "ms_cls" in pd.read_csv("b/front.csv")
    nasmvt("front", run, "--search", "a", "--pick", "100%")


def test_measuring_is_a_command(nasmvt, run) -> None:
    few = ("--archs", 8, "--held-out", 2, "--rounds", 1)
    printed = nasmvt("measure-latency", run, "--task", "cls", *few, "--out", "phone.json")
    assert "written: phone.json" in printed
    found = json.loads(Path("phone.json").read_text())
    assert found["space"]["name"] == "tiny"
    assert len(found["tasks"]["cls"]["timed"]) == 8
    assert "--task names the task 'clss', unknown; did you mean 'cls'?" in nasmvt.refused(
        "measure-latency", run, "--task", "clss"
    )
    assert "use 'nasmvt benchmark" in nasmvt.refused("measure-latency", run / "export")
    assert "serve --max-latency" in nasmvt.refused("search", run, "--latency", "phone.json")
    assert "unknown; did you mean 'cls'?" in nasmvt.refused(
        "search", run, "--max-latency", "clss=1ms", "--latency", "phone.json"
    )
