"""Files for other runtimes: exported, compared with PyTorch, evaluated and used like the model itself."""

import json
import sys
from pathlib import Path

import onnx
import pytest
import torch

import nasmvt
from nasmvt.data.types import Batch
from nasmvt.errors import UserError
from nasmvt.export import gate
from nasmvt.tasks.network import whole_infos
from tests.cli.conftest import Command, write_experiment
from tests.conftest import make_batch

TASKS = ("cls", "det", "seg")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An exported folder of a tiny model with files for ONNX Runtime, of all tasks."""
    home = tmp_path_factory.mktemp("deploy")
    experiment = write_experiment(path=home / "tiny.yaml")
    command = Command()
    command("train-supernet", experiment, "--out", home / "run")
    text = command("export", home / "run", "--arch", "smallest", "--out", home / "model", "--onnx")
    assert "onnx" in text
    return home / "model"


def served(folder: Path, runtime: str, name: str):
    return nasmvt.load(folder, runtime).networks[name]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_number_of_images_gives_what_pytorch_gives(folder, name, count):
    predictor = served(folder, "onnx", name)
    images, _ = make_batch("classification", size=count)
    infos = whole_infos(images)
    assert predictor.network.disagreement(predictor.outputs(images, infos), images, infos) < gate.TOLERANCE


def test_shared_tensors_are_stored_once(folder):
    loaded = nasmvt.load(folder)
    parameters = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    heads = {name: onnx.load(folder / "onnx" / f"{name}.onnx", load_external_data=False) for name in TASKS}
    places = [
        {entry.key: entry.value for entry in tensor.external_data}["offset"]
        for graph in heads.values()
        for tensor in graph.graph.initializer
        if tensor.external_data
    ]
    assert len(set(places)) < len(places)
    assert (folder / "onnx" / "weights.data").stat().st_size < 1.1 * parameters


def test_evaluate_gives_the_same_metrics(nasmvt, folder, tmp_path):
    nasmvt("evaluate", folder, "--out", tmp_path / "torch.json")
    nasmvt("evaluate", folder, "--runtime", "onnx", "--out", tmp_path / "onnx.json")
    ours, theirs = (json.loads((tmp_path / f"{name}.json").read_text())["metrics"] for name in ("torch", "onnx"))
    for name in TASKS:
        assert theirs[name] == pytest.approx(ours[name], abs=0.05)


def test_predict_writes_the_same_labels(nasmvt, folder, tmp_path):
    for runtime in ("torch", "onnx"):
        nasmvt("predict", folder, "--task", "seg", "--count", 2, "--runtime", runtime, "--out", tmp_path / runtime)
    for path in (tmp_path / "torch" / "seg").glob("*_labels.png"):
        assert path.read_bytes() == (tmp_path / "onnx" / "seg" / path.name).read_bytes()


def test_what_does_not_compute_the_same_is_refused(folder):
    predictor = served(folder, "onnx", "cls")
    images, _ = make_batch("classification", size=2)
    batches = [Batch(images=images, targets=None, infos=whole_infos(images))]
    assert gate.check(predictor, batches, "onnx/cls.onnx") < gate.TOLERANCE
    with torch.no_grad():
        predictor.network.head.fc.bias += 0.1
    with pytest.raises(UserError, match=r"onnx/cls\.onnx must compute what PyTorch computes"):
        gate.check(predictor, batches, "onnx/cls.onnx")


def test_a_folder_with_such_files_is_not_overwritten(nasmvt, folder):
    assert "exists" in nasmvt.refused("export", folder, "--onnx")
    assert "pass --onnx" in nasmvt.refused("export", folder)
    assert "did you mean 'cls'" in nasmvt.refused("export", folder, "--onnx", "--task", "clss")


def test_a_missing_package_is_named(nasmvt, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install 'nasmvt[onnx]'" in nasmvt.refused("evaluate", folder, "--runtime", "onnx")


def test_missing_files_are_named(nasmvt, folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert "nasmvt export" in nasmvt.refused("predict", tmp_path, "--runtime", "onnx")
    assert "unknown runtime 'onx'; did you mean 'onnx'" in nasmvt.refused("predict", tmp_path, "--runtime", "onx")
