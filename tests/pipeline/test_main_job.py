"""Two YAML files in, one deployable model out; stopped and resumed runs end in the same weights."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

import nasmvt
from nasmvt.config import parse
from nasmvt.cost import Budget, Costs
from nasmvt.errors import UserError
from nasmvt.pipeline.archs import ArchFile
from nasmvt.pipeline.compare import compare
from nasmvt.pipeline.datasets import open_data
from nasmvt.pipeline.evaluate import data_configs, data_of, evaluate_on_val
from nasmvt.pipeline.experiment import Experiment
from nasmvt.pipeline.export import export
from nasmvt.pipeline.inputs import find_pictures, val_pictures
from nasmvt.pipeline.predict import predict
from nasmvt.pipeline.retrain import choose_arch, load_retrained, retrain
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.search import Searching
from nasmvt.pipeline.supernet import load_supernet, resume_supernet, train_supernet
from nasmvt.supernet import Supernet
from nasmvt.training.checkpoint import Checkpoint
from nasmvt.training.metrics import MetricsLog
from tests.conftest import make_batch, tiny_experiment

CPU = torch.device("cpu")


class Stop(Exception):
    pass


class StopAt:
    """A listener that ends the training abruptly, as a crash would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, step, steps, losses, lr):
        if step == self.step:
            raise Stop

    def on_evaluation(self, step, metrics):
        pass


def experiment(**changes) -> Experiment:
    return parse(Experiment, tiny_experiment(**changes), "tiny")


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return Checkpoint.load(folder / "checkpoint.pt").weights


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A trained and searched run."""
    run = train_supernet(experiment(), out=tmp_path_factory.mktemp("runs") / "tiny", device=CPU)
    search_run(run)
    return run


def search_run(run: Run) -> None:
    searching(run).search()


def searching(run: Run, out: Path | None = None) -> Searching:
    supernet = load_supernet(run, CPU)
    return Searching.of(run, budget_of(costs_of(supernet)), device="cpu", out=out)


def costs_of(supernet: Supernet) -> Costs:
    return Costs(supernet.space, supernet.tasks, supernet.sharing())


def budget_of(costs: Costs) -> Budget:
    """Half way between the smallest and the largest network."""
    smallest, largest = (costs.parameters(arch).total for arch in (costs.space.smallest, costs.space.largest))
    return Budget((smallest + largest) // 2)


def test_run_directory_shows_what_went_in_and_what_came_out(run):
    folder = run.folder("supernet")
    for name in ("cls", "det", "seg"):
        for kind in ("batches", "predictions"):
            assert pixels(folder / kind / f"{name}.png").std() > 0
    assert pixels(folder / "curves.png").std() > 0
    entries = run.metrics("supernet")
    assert [entry["step"] for entry in entries if "loss" in entry] == [1, 2, 3, 4, 5, 6]
    assert list(entries[-1]["metrics"]) == ["smallest", "random", "largest"]
    assert Experiment.model_validate(yaml.safe_load((run.path / "config.yaml").read_text())) == run.experiment


def test_supernet_resumed_after_a_crash_equals_the_uninterrupted_one(run, tmp_path):
    with pytest.raises(Stop):
        train_supernet(experiment(), out=tmp_path / "run", device=CPU, listener=StopAt(5))
    crashed = Run.open(tmp_path / "run")
    assert Checkpoint.load(crashed.folder("supernet") / "checkpoint.pt").step == 3
    resume_supernet(crashed, device=CPU)
    assert_equal(weights(crashed.folder("supernet")), weights(run.folder("supernet")))
    steps = [[entry["step"] for entry in r.metrics("supernet")] for r in (crashed, run)]
    assert steps[0] == steps[1]


def test_killed_process_resumed_equals_the_uninterrupted_one(run, tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_experiment(), sort_keys=False))
    command = [sys.executable, "-m", "nasmvt.cli.main", "train-supernet", "--out", str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, str(tmp_path / "tiny.yaml"), "--device", "cpu"], env=environment)
    metrics = MetricsLog(tmp_path / "run" / "supernet" / "metrics.jsonl")
    while process.poll() is None and not any(e["step"] == 4 for e in metrics.read()):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "metrics" not in metrics.read()[-1], "it ended before it was killed"
    subprocess.run([*command, "--resume", "--device", "cpu"], env=environment, check=True, stdout=subprocess.DEVNULL)
    assert_equal(weights(tmp_path / "run" / "supernet"), weights(run.folder("supernet")))


def test_another_seed_gives_other_weights(run, tmp_path):
    other = train_supernet(experiment(seed=1), out=tmp_path / "run", device=CPU)
    first, second = weights(other.folder("supernet")), weights(run.folder("supernet"))
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_search_stays_within_budget_and_ranks(run):
    table = pd.read_csv(run.folder("search") / "candidates.csv")
    assert (table.parameters <= budget_of(costs_of(load_supernet(run, CPU))).parameters).all()
    assert table.score.is_monotonic_decreasing
    assert table.id.is_unique
    best = yaml.safe_load((run.folder("search") / "best.yaml").read_text())
    assert best["id"] == table.id[0]
    score = sum(best["metrics"][t][m] for t, m in (("cls", "top1"), ("det", "box_map"), ("seg", "miou")))
    assert best["score"] == pytest.approx(score)


def test_exported_supernet_subnet_equals_what_the_search_saw(run, tmp_path):
    folder = export(run, out=tmp_path / "model")
    best = yaml.safe_load((run.folder("search") / "best.yaml").read_text())
    config = json.loads((folder / "config.json").read_text())
    assert config["metrics"] == {"split": "search", **best["metrics"]}
    assert config["parameters"] == best["parameters"]
    supernet = load_supernet(run, CPU)
    arch = supernet.space.arch(best["arch"])
    model, loaded = supernet.materialize(arch), nasmvt.load(folder)
    for name in ("cls", "det", "seg"):
        images, _ = make_batch(supernet.tasks[name].config.kind)
        loaded.task(name).network.load_state_dict(  # BatchNorm was recalibrated: compare with the same statistics
            {key: value for key, value in model.task(name).state_dict().items() if "running" in key}, strict=False
        )
        with torch.inference_mode():
            ours, theirs = loaded.task(name)(images), model.eval().task(name)(images)
        if name != "det":
            assert torch.equal(ours, theirs)
        else:
            assert all(torch.equal(a[key], b[key]) for a, b in zip(ours, theirs, strict=True) for key in a)


def test_figures_of_the_search_are_not_measured_again(run, tmp_path, monkeypatch):
    monkeypatch.setattr("nasmvt.pipeline.export.evaluate", lambda *_: {"measured": 1.0})
    folder = export(run, out=tmp_path / "best")
    assert json.loads((folder / "config.json").read_text())["metrics"] == {"split": "search", **run.best().metrics}
    folder = export(run, name="smallest", out=tmp_path / "smallest")
    assert json.loads((folder / "config.json").read_text())["metrics"]["cls"] == {"measured": 1.0}
    for key in ("weights", "id"):
        other = yaml.safe_load(run.best_path.read_text()) | {key: "0" * 16}
        (tmp_path / f"{key}.yaml").write_text(yaml.safe_dump(other))
        folder = export(run, name=str(tmp_path / f"{key}.yaml"), out=tmp_path / key)
        assert json.loads((folder / "config.json").read_text())["metrics"]["cls"] == {"measured": 1.0}


def test_what_an_interrupted_search_found_is_marked_and_accepted_only_if_asked(run, tmp_path):
    class Break:
        def on_candidate(self, done, total, candidate, best):
            if done == 2:
                raise KeyboardInterrupt

    assert run.best().complete
    work = searching(run, tmp_path / "half")
    sharing = work.costs.sharing
    with pytest.raises(KeyboardInterrupt):
        work.search(listener=Break())
    best = str(tmp_path / "half" / "best.yaml")
    assert not ArchFile.read(Path(best)).complete
    for step in (lambda: choose_arch(run, best, sharing), lambda: export(run, name=best, out=tmp_path / "m")):
        with pytest.raises(UserError, match=r"interrupted search: .* pass --accept-unfinished"):
            step()
    assert choose_arch(run, best, sharing, accept_unfinished=True).arch
    work.search()
    assert choose_arch(run, best, sharing).arch == choose_arch(run, "best", sharing).arch


def test_retrain_export_load_evaluate_predict(run, tmp_path):
    supernet = load_supernet(run, CPU)
    chosen = choose_arch(run, "best", supernet.sharing())
    model = retrain(run, chosen, supernet, data=open_data(run.experiment), device=CPU).eval()
    start = supernet.materialize(chosen.arch, chosen.sharing)
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), start.parameters(), strict=True))
    assert_equal(load_retrained(run, "best").state_dict(), model.state_dict())

    folder = export(run)
    loaded = nasmvt.load(folder)
    for name in ("cls", "seg"):
        images, _ = make_batch(supernet.tasks[name].config.kind)
        with torch.inference_mode():
            assert torch.equal(loaded.task(name)(images), model.task(name)(images))
    size = (folder / "model.safetensors").stat().st_size
    elements = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    assert size == pytest.approx(elements, rel=0.01) or size - elements < 8 + 200 * len(model.tensors())
    count = json.loads((folder / "config.json").read_text())["parameters"]
    assert count["total"] == sum(p.numel() for p in model.parameters())
    assert f"{count['total']:,}" in (folder / "README.md").read_text()

    metrics = evaluate_on_val(loaded.model, data_of(loaded, data_configs(loaded, ())), CPU)
    assert set(metrics) == {"cls", "det", "seg"}
    picture = tmp_path / "an image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)).save(picture)
    found = find_pictures([tmp_path])
    drawn = list(predict(loaded, dict.fromkeys(loaded.tasks, found), tmp_path / "out"))
    assert [path.parent.name for path in drawn] == ["cls", "det", "seg"]
    assert pixels(tmp_path / "out" / "seg" / "an image_labels.png").shape == (40, 56)
    val = val_pictures(data_configs(loaded, ())["cls"], 2, seed=0)
    assert len(list(predict(loaded, {"cls": val}, tmp_path / "val"))) == 2
    record = json.loads((tmp_path / "out" / "det" / "an image.json").read_text())
    assert record["size"] == [40, 56]


def test_retraining_resumed_after_a_crash_equals_the_uninterrupted_one(run, tmp_path):
    supernet, data = load_supernet(run, CPU), open_data(run.experiment)
    settings = run.experiment.retrain.model_copy(update={"steps": 5, "checkpoint_every": 2})
    archs = choose_arch(run, "smallest", supernet.sharing())
    ends = []
    for name, stop in (("whole", None), ("crashed", 4)):
        here = Run(tmp_path / name, run.experiment.model_copy(update={"retrain": settings}), run.records)
        if stop:
            with pytest.raises(Stop):
                retrain(here, archs, supernet, data=data, device=CPU, listener=StopAt(stop))
        ends.append(retrain(here, archs, supernet, data=data, device=CPU, resume=bool(stop)).state_dict())
    assert_equal(*ends)


def test_shared_tensors_stay_one_through_retraining(run):
    supernet = load_supernet(run, CPU)
    with torch.no_grad():
        for score in supernet.scores.values():
            score.fill_(0.9)
    here = Run(run.path / "all shared", run.experiment, run.records)
    chosen = choose_arch(here, "smallest", supernet.sharing())
    model = retrain(here, chosen, supernet, data=open_data(run.experiment), device=CPU)
    name = "backbone.blocks.0.fc1.weight"
    cls, det = model.task("cls").get_parameter(name), model.task("det").get_parameter(name)
    assert cls is det
    assert not torch.equal(cls, supernet.materialize(chosen.arch).task("cls").get_parameter(name))


def test_compare_trains_all_equally_and_says_what_is_within_budget(tmp_path, monkeypatch):
    monkeypatch.setattr("nasmvt.cost.feasible.NEAR", 0.5)  # the tiny space has few archs
    run = train_supernet(experiment(), out=tmp_path / "run", device=CPU)
    search_run(run)
    costs = costs_of(load_supernet(run, CPU))
    found = {item.name: item for item in compare(run, device=CPU, progress=lambda title: nullcontext(StopAt(-1)))}
    assert list(found) == ["smallest", "largest", "random", "random-near-budget", "best"]
    assert not found["largest"].within_budget
    near, budget = found["random-near-budget"], run.best().budget
    assert near.within_budget
    assert near.parameters.total >= 0.5 * budget
    for item in found.values():
        difference = item.difference
        assert (difference is None) == (item.name == "best")
        if difference is not None:
            assert difference.mean == pytest.approx(found["best"].score - item.score)
            assert difference.low <= difference.mean <= difference.high
    assert found["random"].within_budget
    assert found["best"].within_budget
    for item in found.values():
        assert Checkpoint.load(run.folder("retrain", item.name) / "checkpoint.pt").step == 3
    assert {name: item.parameters.total for name, item in found.items()} == {
        name: costs.parameters(run.experiment.space.arch(run.retrained(name).arch)).total for name in found
    }
