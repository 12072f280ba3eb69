"""Files for other runtimes: exported, compared with PyTorch, evaluated and used like the model itself."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import nasmvt
from nasmvt.config import parse
from nasmvt.data.types import Batch
from nasmvt.errors import UserError
from nasmvt.export import gate, save
from nasmvt.pipeline.datasets import infos_of, open_data
from nasmvt.pipeline.experiment import Experiment
from nasmvt.pipeline.supernet import build_supernet
from nasmvt.tasks.network import whole_infos
from tests.cli.conftest import Command
from tests.conftest import make_batch, randomize, tiny_experiment

TASKS = ("cls", "det", "seg")
ARCH = {"depth": 4, "embed_dim": 16, "num_heads": [1, 2, 1, 1], "mlp_ratio": [1, 1, 1, 1]}
"""Two heads: attention over several is laid out in another way than over one."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An exported folder of a tiny model that was drawn at random, with the files of every runtime."""
    experiment = parse(Experiment, tiny_experiment(), "tiny")
    supernet = build_supernet(experiment, infos_of(open_data(experiment)))
    randomize(supernet)
    home = tmp_path_factory.mktemp("deploy") / "model"
    save(supernet.materialize(experiment.space.arch(ARCH)).eval(), home, metrics={}, split="none", seed=0)
    command = Command()
    text = command("export", home, "--onnx", "--with-preprocessing")
    assert "onnx/cls.onnx" in text
    assert "onnx/seg.image.onnx" in text
    assert "pt2/det.pt2" in command("export", home, "--pt2", "--task", "det")
    return home


def served(folder: Path, runtime: str, name: str):
    return nasmvt.load(folder, runtime, tasks=[name]).networks[name]


@pytest.mark.parametrize(("runtime", "name"), [*(("onnx", name) for name in TASKS), ("pt2", "det")])
def test_any_number_of_images_gives_what_pytorch_gives(folder, runtime, name):
    predictor = served(folder, runtime, name)
    for count in (1, 2, 7):
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


def test_one_file_holds_all_tasks_and_little_else(folder):
    model = onnx.load(folder / "model.onnx")
    assert [item.name for item in model.graph.input] == ["cls.images", "det.images", "det.sizes", "seg.images"]
    tensors = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    apart = (folder / "onnx" / "weights.data").stat().st_size
    assert tensors == pytest.approx(apart, rel=0.05)


def isolated(folder: Path, *words: object) -> list[dict[str, object]]:
    """Run `run_onnx.py` where neither torch nor nasmvt can be imported."""
    code = (
        "import sys, runpy; sys.modules |= dict.fromkeys(['torch', 'torchvision', 'nasmvt'])\n"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    program = [sys.executable, "-I", "-c", code, folder / "run_onnx.py", *words]
    done = subprocess.run([str(word) for word in program], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("whole", [True, False])
def test_the_program_in_the_folder_predicts_the_same_without_torch(folder, tmp_path, whole):
    if not whole:
        folder = Path(shutil.copytree(folder, tmp_path / "model"))
        for file in folder.glob("onnx/*.image.onnx"):
            file.unlink()
    rng = np.random.default_rng(0)
    path = tmp_path / "an image.png"
    Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((80, 60)).save(path)
    loaded = nasmvt.load(folder)
    (found,) = isolated(folder, "cls", path)
    (expected,) = loaded.task("cls").predict([path])
    assert found["cls"] == pytest.approx(dict(expected.top(5)), abs=0.01)
    (found,) = isolated(folder, "det", path)
    objects = loaded.task("det").predict([path])[0].to_json()["objects"]
    assert [item["score"] for item in found["det"]] == pytest.approx([item["score"] for item in objects], abs=0.01)
    (found,) = isolated(folder, "seg", path)
    labels = loaded.task("seg").predict([path])[0].labels.numpy()
    with Image.open(found["seg"]) as drawn:
        assert (np.asarray(drawn) == labels).mean() > 0.98


def test_files_that_take_images_give_predictions_in_their_pixels(folder):
    image = np.random.default_rng(0).integers(0, 255, (90, 130, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(folder / "onnx" / "det.image.onnx")
    boxes, labels, scores = session.run(["boxes", "labels", "scores"], {"image": image})
    expected = nasmvt.load(folder).task("det").predict([image])[0]
    assert len(boxes) == len(expected.boxes) > 0
    assert labels.tolist() == expected.labels.tolist()
    assert boxes == pytest.approx(expected.boxes.numpy(), abs=1)
    assert scores == pytest.approx(expected.scores.numpy(), abs=0.01)


def test_a_program_of_torch_export_loads_without_nasmvt(folder):
    code = (
        "import sys; sys.modules['nasmvt'] = None; import torch, torchvision\n"
        "program = torch.export.load(sys.argv[1]).module()\n"
        "print(program(images=torch.rand(3, 3, 32, 32), sizes=torch.tensor([[32, 32]] * 3))['boxes'].shape)"
    )
    program = [sys.executable, "-c", code, str(folder / "pt2" / "det.pt2")]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert "[3, 5, 4]" in done.stdout


def test_evaluate_gives_the_same_metrics(nasmvt, folder, tmp_path):
    nasmvt("evaluate", folder, "--out", tmp_path / "torch.json")
    nasmvt("evaluate", folder, "--runtime", "onnx", "--out", tmp_path / "onnx.json")
    ours, theirs = (json.loads((tmp_path / f"{name}.json").read_text())["metrics"] for name in ("torch", "onnx"))
    assert theirs["det"].keys() == ours["det"].keys()  # scores of random weights are close: rounding orders them
    for name in ("cls", "seg"):
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


def test_quantised_files_are_small_and_their_metrics_stand_in_the_card(nasmvt, folder):
    assert "not head.nothing" in nasmvt.refused("export", folder, "--int8", "--keep-float", "head.nothing")
    text = nasmvt("export", folder, "--int8", "--task", "cls", "--keep-float", "backbone.stem")
    assert "backbone.stem" in text
    graph = onnx.load(folder / "int8" / "cls.onnx").graph
    weights = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    assert len(weights) > 10
    noted = json.loads((folder / "config.json").read_text())["int8"]["cls"]
    nasmvt("evaluate", folder, "--runtime", "onnx", "--out", "float.json")
    assert noted["float"] == pytest.approx(json.loads(Path("float.json").read_text())["metrics"]["cls"])
    assert noted["kept_in_float"] == ["backbone.stem"]
    assert "## Quantised files" in (folder / "README.md").read_text()
    predictor = served(folder, "int8", "cls")
    stem = next(predictor.network.backbone.stem.parameters())
    assert [tensor.data_type for tensor in graph.initializer if list(tensor.dims) == list(stem.shape)] == [
        onnx.TensorProto.FLOAT
    ]
    assert all(len(name) < 4 for node in graph.node for name in node.output if name != "logits")
    images, _ = make_batch("classification", size=3)
    expected = predictor.network(images).numpy(force=True)
    assert predictor(images)["logits"].shape == expected.shape
    # What the file says, computed in float: products of integers saturate on some processors.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(folder / "int8" / "cls.onnx", options)
    (found,) = session.run(["logits"], {"images": predictor.network.normalize(images).numpy()})
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert 0 < difference < 0.05


def test_a_folder_with_such_files_is_not_overwritten(nasmvt, folder):
    assert "exists" in nasmvt.refused("export", folder, "--onnx")
    assert "pass --onnx" in nasmvt.refused("export", folder)
    assert "did you mean 'cls'" in nasmvt.refused("export", folder, "--onnx", "--task", "clss")


def test_a_missing_package_is_named(nasmvt, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install 'nasmvt[onnx]'" in nasmvt.refused("evaluate", folder, "--runtime", "onnx")


def test_a_missing_compiler_is_named(nasmvt, folder, no_compiler):
    assert "none works here: install one" in nasmvt.refused("export", folder, "--aoti")
    assert not (folder / "aoti").exists()


def test_missing_files_are_named(nasmvt, folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert "nasmvt export" in nasmvt.refused("predict", tmp_path, "--runtime", "onnx")
    assert "unknown runtime 'onx'; did you mean 'onnx'" in nasmvt.refused("predict", tmp_path, "--runtime", "onx")
