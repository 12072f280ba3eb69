"""`nasmvt search` with several objectives, and `nasmvt front`."""

from pathlib import Path

import pandas as pd
import yaml


def test_a_front_is_searched_shown_and_picked_from(nasmvt, run) -> None:
    arguments = ("--algorithm", "nsga2", "--minimize", "parameters", "--workers", 0, "--seed", 3, "--out", "a")
    printed = nasmvt("search", run, *arguments)
    assert "choose from it: nasmvt front" in printed
    front, table = pd.read_csv("a/front.csv"), pd.read_csv("a/candidates.csv")
    assert sorted(front.id) == sorted(table[table.front].id)
    assert front.parameters.is_monotonic_increasing
    assert Path("a/front.png").read_bytes().startswith(b"\x89PNG")

    limit = int(table.parameters.median())
    printed = nasmvt("front", run, "--search", "a", "--pick", limit)
    assert f"front of {len(table)} candidates" in printed
    best = yaml.safe_load(Path("a/best.yaml").read_text())
    within = table[table.parameters <= limit]
    assert best["id"] in set(within[within.score == within.score.max()].id)
    assert (best["budget"], best["complete"]) == (limit, True)
    nasmvt("retrain", run, "--arch", "a/best.yaml")

    assert "no candidate has at most 10 parameters" in nasmvt.refused("front", run, "--search", "a", "--pick", 10)


def test_front_of_an_ordinary_search(nasmvt, run) -> None:
    before = (run / "search" / "best.yaml").read_text()
    assert "front of " in nasmvt("front", run)
    assert (run / "search" / "front.png").is_file()
    assert (run / "search" / "best.yaml").read_text() == before


def test_what_can_not_be_searched_for_is_refused(nasmvt, run) -> None:
    def refused(*options: object) -> str:
        return nasmvt.refused("search", run, "--out", "a", *options)

    assert "use --algorithm nsga2" in refused("--minimize", "parameters")
    assert "--minimize takes one of parameters" in refused("--minimize", "size", "--algorithm", "nsga2")
    assert "unknown search algorithm 'nsga3'; did you mean 'nsga2'?" in refused("--algorithm", "nsga3")
    assert "holds no search" in nasmvt.refused("front", run, "--search", "nowhere")
