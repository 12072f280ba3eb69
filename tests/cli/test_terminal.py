"""Tables fit 80 columns, every table is there as JSON, shells complete commands and options."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from nasmvt.cli.display import (
    comparison_table,
    front_table,
    metrics_table,
    parameters_table,
    runs_table,
    searches_table,
)
from nasmvt.cli.import_reference import _layers, _totals
from nasmvt.cli.tables import new_table
from nasmvt.config import parse
from nasmvt.cost import ParameterCount
from nasmvt.pipeline.against import Gain, SearchesOf
from nasmvt.pipeline.comparison import Compared, Difference
from nasmvt.pipeline.runs import RunState
from nasmvt.search import Candidate
from nasmvt.space import SearchSpace
from tests.conftest import TINY_SPACE

COUNT = ParameterCount(shared=123_456_789, specific={"cls": 11_111_111}, heads={"cls": 222_222})
METRICS = {"cls": {"top1": 88.75, "top5": 99.5}, "det": {"box_map": 42.25}, "seg": {"miou": 57.5}}


def shown(table: Table) -> str:
    """Return a table as a terminal of 80 columns shows it."""
    file = io.StringIO()
    Console(file=file, width=80).print(table)
    text = file.getvalue()
    assert all(len(line) <= 80 for line in text.splitlines())
    return text


def candidate() -> Candidate:
    arch = parse(SearchSpace, TINY_SPACE, "tiny").largest
    return Candidate(arch=arch, parameters=COUNT, metrics=METRICS, score=188.5, generation=0, macs={"det": 4 * 10**11})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            comparison_table([Compared("near the budget", COUNT, METRICS, 188.5, True)]),
            ["134,790,122", "parameters", "box_map", "near the budget", "188.50"],
        ),
        (front_table([candidate()], 12), ["134,790,122", "parameters", "400.000", "188.50", "embed_dim"]),
        (
            runs_table([RunState(Path("runs/20260101-120000-shapes"), "vit_mvt_nano", "exported", 188.5, 134_790_122)]),
            ["134,790,122", "parameters", "188.50", "exported"],
        ),
        (metrics_table("on val", METRICS), ["88.75", "box_map"]),
        (parameters_table(COUNT.to_dict()), ["134,790,122", "cls, own part of the backbone"]),
        (
            _layers(
                {
                    "merged": {
                        "layers": 3,
                        "parameters": 4,
                        "by kind of layer": {
                            "backbone.layers.*.attn.relative_position": dict.fromkeys(
                                ("shared by all", "shared by some", "specific by score", "different"), 1000
                            )
                        },
                    }
                }
            ),
            ["different", "specific", "1000"],
        ),
        (
            _totals(
                {
                    "files": ["cls", "det", "seg"],
                    "parameters": {
                        "in the files": dict.fromkeys(("total", "cls", "det", "seg"), 134_790_122),
                        "networks alone": dict.fromkeys(("total", "cls", "det", "seg"), 134_790_122),
                        "merged": {"total": 3},
                    },
                }
            ),
            ["134,790,122", "networks alone"],
        ),
    ],
)
def test_tables_fit_80_columns_and_cut_no_word(table, words):
    text = shown(table)
    for word in words:
        assert word in text


FOUR_TASKS = METRICS | {"depth": {"delta1": 81.25}}
GAIN = Gain(mean=-12.25, low=-101.5, high=13.75, seeds=1234)


@pytest.mark.parametrize(
    ("table", "rows", "last"),
    [
        (
            comparison_table(
                [
                    Compared("random-near-budget", COUNT, FOUR_TASKS, 188.5, True, difference=Difference(-3.5, -9, 2)),
                    Compared("best", COUNT, FOUR_TASKS, 188.5, True),
                ]
            ),
            {"random-near-budget": 2},
            ["-3.5 [-9.0, +2.0]"],
        ),
        (
            searches_table([SearchesOf("random-near-budget", (300,), (160.5,), (170.5,), GAIN, GAIN)]),
            {"random-near-budget": 2},
            ["-12.25 [-101.50, +13.75]", "1234"],
        ),
    ],
)
def test_columns_without_room_go_on_below_beside_the_first(table, rows, last):
    text = shown(table)
    assert {name: text.count(name) for name in rows} == rows
    assert all(word in text for word in last)
    assert text.count(str(table.title)[:40]) == 1


def test_only_long_texts_are_wrapped():
    table = new_table("t", "a long header", "text", wrap=("text",))
    table.add_row("1,234,567", "word " * 40)
    lines = shown(table).splitlines()
    assert any("1,234,567 " in line for line in lines)
    assert "".join(lines).count("word") == 40
    assert [word for word in ("a", "long", "header") if any(f" {word} " in line for line in lines)] == [
        "a",
        "long",
        "header",
    ]


def test_long_names_of_modules_stay_whole(nasmvt):
    text = nasmvt("profile", "vit_mvt_nano", "--experiment", "shapes")
    assert "head.roi_heads.box_predictor" in text
    assert all(len(line) <= 80 for line in text.splitlines() if line[:1] in "┃│└┏┡")


def only_json(nasmvt, *words: object) -> object:
    return json.loads(nasmvt(*words, "--json", "-"))


def test_json_alone_is_printed_where_it_is_asked_for(nasmvt, run):
    runs = only_json(nasmvt, "runs", run.parent)
    (state,) = runs
    assert (state["stage"], state["path"]) == ("exported", str(run))
    members = only_json(nasmvt, "front", run)
    assert members[-1]["score"] == max(member["score"] for member in members)
    metrics = only_json(nasmvt, "evaluate", run / "export")
    assert metrics == json.loads((run / "export" / "evaluation.json").read_text())
    exported = only_json(nasmvt, "export", run, "--out", "again")
    assert exported["parameters"]["total"] == state["parameters"]
    shutil.rmtree(run / "search")
    found = only_json(nasmvt, "search", run, "--budget", "150K")
    assert found[0]["score"] == state["score"]
    assert only_json(nasmvt, "data", run / "config.yaml").keys() == {"cls", "det", "seg"}


def test_json_goes_into_a_file_beside_the_table(nasmvt, run):
    text = nasmvt("runs", run.parent, "--json", "runs.json")
    assert "T-score" in text
    assert "written: runs.json" in text
    assert json.loads(Path("runs.json").read_text())[0]["space"] == "tiny"


def complete(words: str) -> list[str]:
    """Return what bash is told for the last word of a command line."""
    program = "import sys; sys.argv[0] = 'nasmvt'; from nasmvt.cli.main import main; main()"
    count = str(len(words.split(" ")) - 1)
    environment = {**os.environ, "_NASMVT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": count}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_shells_complete_commands_and_options():
    assert sorted(complete("nasmvt re")) == ["report", "retrain"]
    assert complete("nasmvt search --bud") == ["--budget"]


def test_the_report_is_a_command(nasmvt, run):
    text = nasmvt("report", run)
    assert f"written: {run / 'report.html'}" in text
    assert (run / "report.html").read_text().startswith("<!doctype html>")


def test_watching_ends_with_ctrl_c_and_leaves_a_page_that_stays(nasmvt, run, monkeypatch):
    pages = []

    def sleep(seconds: float) -> None:
        pages.append((run / "report.html").read_text())
        if len(pages) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    text = nasmvt("report", run, "--watch", "--every", "7")
    assert text.count("again in 7 s") == len(pages) == 2
    assert all('<meta http-equiv="refresh" content="7">' in page for page in pages)
    assert "refresh" not in (run / "report.html").read_text()
