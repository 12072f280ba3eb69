"""The report of a run: one HTML file that needs nothing else, whatever steps were done."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from nasmvt.config import parse
from nasmvt.cost import Budget, Costs
from nasmvt.pipeline.comparison import Compared, Difference
from nasmvt.pipeline.datasets import open_data
from nasmvt.pipeline.experiment import Experiment
from nasmvt.pipeline.identity import TaskRecord
from nasmvt.pipeline.network_blocks import find_blocks
from nasmvt.pipeline.report import Report
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.runs import list_runs, stage_of
from nasmvt.pipeline.search import Searching
from nasmvt.pipeline.supernet import load_supernet, train_supernet
from nasmvt.report.charts import Mark, Series, line_chart, scatter, short
from nasmvt.report.page import figure, table
from nasmvt.space import Sharing
from tests.conftest import tiny_experiment

CPU = torch.device("cpu")
SECTIONS = ["data", "supernet", "search", "network", "retraining", "comparison", "images", "timings", "commands"]
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and keeps what stands on a page."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str, name: str) -> list[str]:
        return [str(attrs[name]) for found, attrs in self.tags if found == tag and name in attrs]


def read(run: Run) -> Page:
    Report(run).write()
    content = run.report_path.read_text()
    assert not re.search(r"https?:|url\(|@import", content.replace("http-equiv", "")), "it refers to something outside"
    page = Page(content)
    assert page.all("section", "id") == SECTIONS
    assert page.all("script", "src") == page.all("link", "src") == []
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.all("img", "src"))
    return page


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A run that was trained and searched; a class has a name that is HTML."""
    values = tiny_experiment()
    values["tasks"]["cls"]["data"]["classes"] = ["<script>", "b&b", '"c"', "d", "e"]
    path = tmp_path_factory.mktemp("runs") / "tiny"
    run = train_supernet(parse(Experiment, values, "tiny"), out=path, device=CPU)
    supernet = load_supernet(run, CPU)
    costs = Costs(supernet.space, supernet.tasks, supernet.sharing())
    budget = Budget(int(costs.totals.of(supernet.space.largest)[0]) - 1)
    Searching.of(run, budget, device="cpu").search()
    return run


def test_a_run_that_only_began_has_every_section(tmp_path):
    experiment = parse(Experiment, tiny_experiment(), "tiny")
    records = {name: TaskRecord.of(data, ("train",)) for name, data in open_data(experiment).items()}
    run = Run(tmp_path / "r", experiment, records)
    run.write()
    page = read(run)
    assert page.text.count("Not searched yet.") == 2
    assert "Not trained yet." in page.text
    assert stage_of(run) == "supernet, step 0 of 6"


def test_the_report_shows_what_was_searched(run):
    page = read(run)
    candidates = run.candidates()
    tips = page.all("circle", "data-tip")
    hints = [tip for tip in tips if tip.startswith("T-score")]
    assert len(hints) == len(candidates)
    best = run.best()
    assert best.score is not None
    assert any(f"T-score {best.score:.2f}" in tip and f"embed_dim={best.arch['embed_dim']}" in tip for tip in hints)
    assert page.all("line", "class").count("budget") == 1
    assert best.parameters is not None
    assert f"{best.parameters.count.total:,}" in page.text
    assert f"--budget {best.budget}" in page.text
    assert "<script>" in page.text, "the name of a class is text"
    assert len(page.all("script", "nonce") or [tag for tag, _ in page.tags if tag == "script"]) == 1
    assert len(page.all("img", "src")) == 6  # a batch and predictions of every task
    assert run.report_path.stat().st_size < 1_500_000


def test_lanes_of_shared_layers_are_those_of_the_result(run):
    best = run.best()
    sharing = best.read_sharing()
    assert sharing is not None
    blocks = find_blocks(run.experiment.space, run.tasks, best.read_arch(run.experiment.space, Path()), sharing)
    depth = best.arch["depth"]
    inner = [block for block in blocks if block.name.startswith("blocks.")]
    assert [block.name for block in inner] == [f"blocks.{i}" for i in range(depth)]
    assert [block.options for block in inner] != [""] * depth
    for number, block in enumerate(inner):
        for layer in block.layers:
            assert layer.sharers == sharing.tasks(f"backbone.blocks.{number}.{layer.name}")
    sizes = [count for block in blocks for layer in block.layers for count in layer.parameters.values()]
    assert best.parameters is not None
    count = best.parameters.count
    once = sum(
        next(iter(layer.parameters.values())) * (len(layer.sharers) - 1)
        for block in blocks
        for layer in block.layers
        if layer.sharers
    )
    assert sum(sizes) - once == count.shared + sum(count.specific.values())


def test_partly_shared_layers_name_their_tasks(run):
    space, tasks = run.experiment.space, run.tasks
    sharing = Sharing.of({"backbone.blocks.0.attn.qkv": ("cls", "seg")})
    blocks = {block.name: block for block in find_blocks(space, tasks, space.smallest, sharing)}
    layers = {layer.name: layer.sharers for layer in blocks["blocks.0"].layers}
    assert layers.pop("attn.qkv") == ("cls", "seg")
    assert set(layers.values()) == {()}


def test_the_comparison_is_shown(run):
    best = run.best()
    assert best.parameters is not None
    metrics = {"cls": {"top1": 80.0}, "det": {"box_map": 12.5}, "seg": {"miou": 33.3}}
    best_row = Compared("best", best.parameters.count, metrics, 125.8, True)
    other = replace(best_row, name="smallest", difference=Difference(2.5, 0.5, 4.5))
    run.write_comparison([other, best_row])
    try:
        page = read(run)
        assert "searched125.8080.012.533.3" in page.text
        assert "+2.5 [+0.5, +4.5]: better" in page.text
        assert stage_of(run) == "compared"
        assert "nasmvt compare" in page.text
    finally:
        run.comparison_path.unlink()


def test_a_search_that_goes_on_is_read_and_left_alone(run, tmp_path):
    journal = run.search_files.journal
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"kind": "evaluat')
    try:
        read(run)
        assert journal.read_bytes() == whole + b'{"kind": "evaluat'
    finally:
        journal.write_bytes(whole)


def test_runs_are_listed_with_what_they_reached(run, tmp_path):
    broken = run.path.parent / "broken"
    broken.mkdir()
    (broken / "config.yaml").write_text("tasks: 3")
    try:
        by_name = {state.path.name: state for state in list_runs(run.path.parent)}
    finally:
        (broken / "config.yaml").unlink()
        broken.rmdir()
    best = run.best()
    assert best.parameters is not None
    state = by_name["tiny"]
    assert (state.stage, state.space) == ("searched", run.experiment.space.name)
    assert (state.score, state.parameters) == (best.score, best.parameters.count.total)
    assert by_name["broken"].stage.startswith("can't be opened: ")


def test_a_watched_page_loads_itself_again(run):
    Report(run).write(refresh=7)
    refresh = [attrs for tag, attrs in Page(run.report_path.read_text()).tags if attrs.get("http-equiv") == "refresh"]
    assert [attrs["content"] for attrs in refresh] == ["7"]


# -- charts ---------------------------------------------------------------------------------------


def test_points_are_drawn_in_their_order_and_inside_the_axes():
    page = Page(scatter([Mark(1e6, 10.0, "low", "red"), Mark(3e6, 30.0, "high", "red")], "x", "y", limit=2e6))
    dots = [attrs for tag, attrs in page.tags if tag == "circle"]
    (x0, y0), (x1, y1) = ((float(dot["cx"]), float(dot["cy"])) for dot in dots)
    assert 56 < x0 < x1 < 466
    assert 12 < y1 < y0 < 232
    line = next(attrs for tag, attrs in page.tags if attrs.get("class") == "budget")
    assert float(line["x1"]) == pytest.approx((x0 + x1) / 2, abs=0.1)
    assert [dot["data-tip"] for dot in dots] == ["low", "high"]


def test_long_curves_are_thinned_and_bad_values_left_out():
    points = [(float(i), float("nan") if i == 5 else 2.0) for i in range(10_000)]
    page = Page(line_chart([Series("loss", points)], "step", "loss"))
    places = page.all("polyline", "points")[0].split()
    assert 150 <= len(places) <= 200
    assert "nan" not in " ".join(places)
    assert line_chart([Series("loss", [(1.0, float("inf"))])], "step", "loss") == ""


def test_a_lone_point_is_seen():
    page = Page(line_chart([Series("miou", [(40.0, 58.0)]), Series("other", [(40.0, 3.0), (41.0, 3.0)])], "step", "%"))
    sizes = [float(attrs["r"]) for tag, attrs in page.tags if tag == "circle" and attrs.get("class") != "hit"]
    assert sizes[0] > 2 * sizes[1] == 2 * sizes[2]


def test_what_is_wider_than_a_phone_scrolls_or_is_broken_into_lines():
    page = Page(table(("n", "labels"), [(1, "circle 90, " * 9)]) + figure("<svg></svg>", "pairs", double=True))
    assert page.all("td", "class") == ["n", "long"]
    assert page.all("div", "class") == ["wide", "wide"]
    assert page.all("figure", "class") == ["chart double"]


def test_numbers_are_short_and_tables_are_escaped():
    assert [short(value) for value in (0, 0.004, 950, 1200, 1_250_000, 2e9)] == [
        "0",
        "0.004",
        "950",
        "1.2k",
        "1.25M",
        "2B",
    ]
    page = Page(table(("<b>", "n"), [("a&b", "1,200")]))
    assert page.text == "<b>na&b1,200"
    assert page.all("td", "class") == ["n"]
