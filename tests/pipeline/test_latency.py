"""Measuring latencies here and by a kit, and keeping a bound by measurement."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from nasmvt.errors import UserError
from nasmvt.export import measure_latency as standalone
from nasmvt.pipeline import latency, latency_bound
from nasmvt.pipeline.latency import Effort, Networks, measure_table, read_times, setting_here, write_kit
from nasmvt.pipeline.latency_bound import Confirmation
from nasmvt.search import Candidate, Journal

FEW = Effort(archs=4, held_out=2, rounds=1, passes=1)


@pytest.fixture
def table(space, tasks):
    """Measured in a process of its own."""
    return measure_table(Networks(space, tasks), ["cls"], setting_here(), FEW)


def test_a_bound_is_kept_by_measurement(table, space, tasks, tmp_path, monkeypatch, tiny_costs):
    assert len(table.tasks["cls"].timed) == 4
    assert all(0 < one.ratio < 100 for one in table.tasks["cls"].timed)

    archs = [space.largest, *(arch for arch in space.covering if arch != space.largest), space.smallest]
    archs = list(dict.fromkeys(archs))
    ranked = [
        Candidate(
            arch=arch,
            parameters=tiny_costs.parameters(arch),
            metrics={},
            score=-place,
            generation=0,
            latency={"cls": 900},
        )
        for place, arch in enumerate(archs)
    ]
    scale = 1000 * table.tasks["cls"].milliseconds
    measured = []

    def fake(networks, task, these, setting, effort):
        measured.extend(these)
        return 1.0, {arch: (2.0 if arch == space.largest else 0.5) * 1000 / scale for arch in these}

    monkeypatch.setattr(latency_bound, "time_archs", fake)
    monkeypatch.setattr(latency_bound, "TOGETHER", 1)
    journal = Journal(tmp_path / "journal.jsonl")
    journal.begin({})
    confirm = Confirmation(Networks(space, tasks), table, {"cls": 1000}, journal)
    found = confirm(ranked)
    assert [one.arch for one in found] == [*archs[1:], archs[0]]
    assert (found[0].timed, found[-1].timed) == ({"cls": 500}, {"cls": 2000})
    assert len(measured) == 2 * latency_bound.PROCESSES

    again = Journal(tmp_path / "journal.jsonl")
    again.begin({})
    assert replace(confirm, journal=again)(ranked) == found
    assert len(measured) == 2 * latency_bound.PROCESSES  # the journal knows

    with pytest.raises(UserError, match=r"none of the .* best candidates is within .* takes .*% more for cls"):
        replace(confirm, journal=again, limits={"cls": 100})(ranked)

    monkeypatch.setattr(latency_bound, "is_here", lambda setting: False)
    assert replace(confirm, journal=again, limits={"cls": 100})(ranked) == ranked


def test_a_kit_is_measured_elsewhere(space, tasks, tmp_path):
    pytest.importorskip("onnxruntime")
    networks, folder = Networks(space, tasks), tmp_path / "kit"
    write_kit(networks, ["cls"], 1, Effort(archs=2, held_out=1, rounds=1, passes=1), folder)
    program = Path(standalone.__file__).name
    assert "nasmvt" not in (folder / program).read_text().split('"""')[2]  # it needs numpy and onnxruntime alone
    runpy.run_path(str(folder / program))["main"](folder, "1")
    found = read_times(folder / "times.json", space, tasks)
    assert (found.setting.runtime, found.setting.threads) == ("onnx", 1)
    assert len(found.tasks["cls"].timed) == 2
    assert found.tables(space, "cls").of(space.largest)[0] > 0

    values = json.loads((folder / "times.json").read_text())
    values["space"]["choices"]["embed_dim"]["options"] = [8, 16]
    (tmp_path / "other.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="measured on 'tiny', whose choices differ"):
        read_times(tmp_path / "other.json", space, tasks)


def test_what_a_runtime_can_not_do_is_refused():
    with pytest.raises(UserError, match="by the runtimes torch and onnx, not 'tflite'"):
        setting_here(runtime="tflite")
    with pytest.raises(UserError, match="ONNX Runtime is measured on the CPU in fp32, not on cpu in bf16"):
        setting_here(runtime="onnx", precision="bf16")
    assert latency.is_here(setting_here())
