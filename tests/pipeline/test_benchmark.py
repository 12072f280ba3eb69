"""What is measured, not how fast it is."""

import json

import pytest
import torch

from nasmvt import api
from nasmvt.export import save
from nasmvt.pipeline import benchmark
from nasmvt.pipeline.benchmark import Speed
from nasmvt.pipeline.datasets import TaskData
from tests.cli.conftest import Command


@pytest.fixture
def folder(supernet, space, tmp_path):
    save(supernet.materialize(space.smallest).eval(), tmp_path / "model", metrics={}, split="none", seed=0)
    return tmp_path / "model"


def test_speed_is_images_over_time_and_percentiles_are_of_calls():
    speed = Speed.of([0.1] * 98 + [0.2, 1.0], images=4, memory=5.0)
    assert speed.images_per_second == pytest.approx(4 * 100 / 11)
    assert (speed.p50, speed.p90, speed.calls, speed.memory) == (pytest.approx(100), pytest.approx(100), 100, 5.0)
    assert 190 < speed.p99 < 300


def test_the_command_writes_a_row_per_setting(folder):
    text = Command()("benchmark", folder, "--task", "cls", "--batch", 1, "--batch", 3, "--seconds", 0.1)
    assert "images/s" in text
    content = json.loads((folder / "benchmark.json").read_text())
    assert [(row["task"], row["runtime"], row["batch"], row["threads"]) for row in content["rows"]] == [
        ("cls", "torch", 1, 1),
        ("cls", "torch", 3, 1),
    ]
    assert all(row["calls"] >= 10 and row["p50"] <= row["p99"] for row in content["rows"])


def test_the_function_returns_the_rows_of_the_command(folder, monkeypatch):
    monkeypatch.setattr(benchmark, "_apart", lambda work: [(one, benchmark._run(*given)) for one, given in work])
    (row,) = api.benchmark(folder, tasks=["cls"], batches=[2], seconds=0.1)
    assert (row["task"], row["runtime"], row["batch"], row["threads"]) == ("cls", "torch", 2, 1)
    assert row["images_per_second"] > 0
    assert row["calls"] >= 10
    with pytest.raises(api.UserError, match="did you mean 'cls'"):
        api.benchmark(folder, tasks=["clss"])


def test_fps_leaves_out_the_first_five_images(supernet, space, tasks):
    data = TaskData("cls", tasks["cls"].config.model_copy(update={"data": small(tasks["cls"].config.data)}), 0)
    network = supernet.materialize(space.smallest).task("cls").eval()
    seen = []
    network.predict = lambda images, infos: seen.append((images.shape, infos[0].size))
    with torch.inference_mode():
        assert len(benchmark._time_predictions(network, data, 2)) == 2
    assert len(seen) == 7
    assert {shape for shape, _ in seen} == {(1, 3, 32, 32)}
    assert len(benchmark._time_predictions(network, data, 100)) == 3


def small(config):
    return config.model_copy(update={"train_images": 8, "val_images": 8})


def test_an_unknown_task_or_runtime_is_refused(folder):
    refused = Command().refused
    assert "did you mean 'cls'" in refused("benchmark", folder, "--task", "clss")
    assert "did you mean 'onnx'" in refused("benchmark", folder, "--task", "cls", "--runtime", "onnnx")
