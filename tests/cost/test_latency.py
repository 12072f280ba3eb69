"""Tables of latency: fitted on some archs, right about others, bounded as costs are, refused for other networks."""

import json

import numpy as np
import pytest

from nasmvt.config import parse
from nasmvt.cost import Budget, Costs, FeasibleSet, LatencyTable, parse_latency
from nasmvt.cost.latency_model import Parts, agreement, design, fit
from nasmvt.cost.latency_table import Setting, TaskLatency, plain
from nasmvt.cost.tables import ItemTables
from nasmvt.errors import UserError
from nasmvt.export.measure_latency import interleaved
from nasmvt.space import Sharing
from tests.cost.test_tables import space


def work(arch) -> dict[str, int]:
    """Multiply-accumulates: those of blocks depend on two slots each."""
    pairs = zip(arch["heads"], arch["ratio"], strict=True)
    blocks = {f"{i}.{n}": arch["width"] * x for i, pair in enumerate(pairs) for n, x in zip("ab", pair, strict=True)}
    return {**blocks, "stem": 5 * arch["stem"]}


def milliseconds(arch) -> float:
    """A time that work does not tell: heads are slow, ratios are nearly free, the second block is dear."""
    heads = sum(heads**1.5 * (1 + (block == 1)) * arch["width"] ** 0.5 for block, heads in enumerate(arch["heads"]))
    return 8 + heads + 0.05 * sum(arch["ratio"]) + arch["stem"] + arch["depth"]


@pytest.fixture(scope="module")
def cut():
    items = ItemTables(space(), work)
    return items.add_up([dict.fromkeys(items.slots, 1)])


def test_a_design_shows_every_part_of_the_space(cut):
    one, parts = space(), Parts(space(), cut)
    chosen = design(parts, 40, np.random.default_rng(0))
    assert len(set(chosen)) == 40
    seen = {key for arch in chosen for part in parts.of(one.encode(arch).tolist()) for key in part}
    rng = np.random.default_rng(1)
    for arch in (one.sample(rng) for _ in range(200)):
        assert {key for part in parts.of(one.encode(arch).tolist()) for key in part} <= seen


def test_a_small_space_is_measured_whole(cut):
    few = space({"depth": [1, 2], "width": [1, 2]})
    everything = Parts(few, FeasibleSet.everything(few).tables)
    assert len(design(everything, 40, np.random.default_rng(0))) == few.size == 4


def test_tables_tell_the_times_of_archs_that_were_not_measured(cut):
    one, parts, rng = space(), Parts(space(), cut), np.random.default_rng(2)
    archs = design(parts, 90, rng)
    noisy = [milliseconds(arch) * rng.normal(1, 0.01) for arch in archs]
    tables = fit(parts, cut, archs, noisy)
    others = [arch for arch in (one.sample(rng) for _ in range(60)) if arch not in archs]
    predicted = [tables.of(arch)[0] / 1000 for arch in others]
    error, correlation = agreement(predicted, [*map(milliseconds, others)])
    assert error < 0.025
    assert correlation > 0.98
    flat = [cut.of(arch)[0] for arch in others]
    assert agreement(flat, [*map(milliseconds, others)])[1] < 0.95  # work alone does not tell


def test_archs_within_a_latency_are_drawn_exactly(cut):
    one, parts = space(), Parts(space(), cut)
    archs = design(parts, 30, np.random.default_rng(0))
    tables = fit(parts, cut, archs, [*map(milliseconds, archs)])
    limit = int(tables.of(archs[5])[0])
    found = FeasibleSet(tables, [limit])
    drawn = found.sample(200, np.random.default_rng(0))
    assert all(int(tables.of(arch)[0]) <= limit for arch in drawn)
    sampled = FeasibleSet.everything(one).sample(2000, np.random.default_rng(3))
    share = np.mean([int(tables.of(arch)[0]) <= limit for arch in sampled])
    assert found.size / one.size == pytest.approx(share, abs=0.05)


def test_what_slows_a_machine_for_a_while_is_divided_out():
    now, load = 0.0, np.random.default_rng(0)
    costs = {"a": 1.0, "reference": 2.0, "b": 5.0}

    def start(name):
        def once():
            nonlocal now
            slow = 1 + 2 * (int(now / 60) % 2)  # minutes of load, three times as slow
            now += costs[name] * slow * (1 + (load.random() < 0.2))

        return once

    reference, ratios = interleaved(list(costs), "reference", start, 9, 5, lambda: now)
    assert ratios == pytest.approx({"a": 0.5, "reference": 1, "b": 2.5})
    assert reference == pytest.approx(2000)


def test_limits_are_read():
    assert parse_latency(["det=25ms", "cls = 800us", "seg=1.5", "a=2s"]) == {
        "det": 25_000,
        "cls": 800,
        "seg": 1500,
        "a": 2 * 10**6,
    }
    for text in ("det", "det=", "det=25 m", "det=0ms", "det=-3ms"):
        with pytest.raises(UserError, match="--max-latency takes task=time such as det=25ms"):
            parse_latency([text])


# -- files ----------------------------------------------------------------------------------------


@pytest.fixture
def timed(tiny_costs) -> Costs:
    """The tiny space's costs, with invented times."""
    costs = tiny_costs.under(Sharing.of({}))
    one, cut = costs.space, costs.macs("cls")
    archs = design(Parts(one, cut), 24, np.random.default_rng(0))
    ratios = {arch: 0.2 + sum(arch["num_heads"]) * arch["embed_dim"] / 100 for arch in archs}
    held_out = dict(list(ratios.items())[20:])
    task = TaskLatency.fitted(one, costs.tasks["cls"], cut, archs[0], 10.0, ratios, held_out)
    costs.timing = LatencyTable(
        space=plain(one), setting=Setting(processor="imaginary", threads=2), tasks={"cls": task}
    )
    return costs


def test_a_table_survives_its_file(timed, tmp_path):
    path = tmp_path / "t.json"
    timed.timing.write(path)
    again = LatencyTable.read(path)
    assert again == timed.timing
    assert again.digest == timed.timing.digest
    assert again.tasks["cls"].error < 0.05
    arch = timed.space.largest
    assert again.tables(timed.space, "cls").of(arch) == timed.latency("cls").of(arch)


def test_latency_is_a_cost_like_others(timed):
    least, most = (int(timed.latency("cls").of(arch)[0]) for arch in (timed.space.smallest, timed.space.largest))
    middle = (least + most) // 2
    budget = Budget(latency={"cls": middle}).resolve(timed)
    found = budget.feasible(timed)
    assert 0 < found.size < timed.space.size
    assert budget.describe(found)[0].endswith(f"{least / 1000:.3f} to {most / 1000:.3f} ms for cls")
    with pytest.raises(UserError, match=r"a limit of 0.1 ms for cls is below the least .*: raise --max-latency cls="):
        Budget(latency={"cls": 100}).feasible(timed)
    with pytest.raises(UserError, match="the latency table has no task 'det'"):
        Budget(latency={"det": middle}).feasible(timed)
    timed.timing = None
    with pytest.raises(UserError, match="the latency of 'cls' is not known"):
        Budget(latency={"cls": middle}).feasible(timed)


def test_a_table_of_other_networks_is_refused(timed, tasks, tmp_path):
    path, table, one = tmp_path / "t.json", timed.timing, timed.space
    table.check(one, tasks, ["cls"], path)
    other = one.model_copy(update={"fixed": {**one.fixed, "stem_width": 16}})
    with pytest.raises(UserError, match="measured on 'tiny', whose fixed differ from those of 'tiny'"):
        table.check(other, tasks, ["cls"], path)
    data = tasks["cls"].config.data.model_copy(update={"image_size": (48, 48)})
    config = tasks["cls"].config.model_copy(update={"data": data})
    larger = {"cls": type(tasks["cls"])(name="cls", config=config, info=tasks["cls"].info)}
    with pytest.raises(UserError, match=r"the image_size of 'cls' is \[32, 32\], not \[48, 48\]"):
        table.check(one, larger, ["cls"], path)
    with pytest.raises(UserError, match="measured with threads 2, but threads 1 is asked for"):
        table.check_setting(path, threads=1)
    with pytest.raises(UserError, match="device 'cpu', but device 'cuda'"):
        table.check_setting(path, device="cuda", threads=2)


def test_damaged_files_are_refused(timed, tmp_path):
    path = tmp_path / "t.json"
    for text in ("{", "[]", "{}", '{"format": 2}'):
        path.write_text(text)
        with pytest.raises(UserError, match=f"{path} "):
            LatencyTable.read(path)
    values = json.loads(timed.timing.model_dump_json())
    values["tasks"]["cls"]["tables"][-1]["microseconds"] = [1, 2]
    with pytest.raises(UserError, match="the latency table is damaged"):
        parse(LatencyTable, values, "t").tables(timed.space, "cls")
