"""An exported folder is whole, exact, and refused where it is damaged."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import nasmvt
from nasmvt.errors import UserError
from nasmvt.export import save
from tests.conftest import make_batch

METRICS = {"cls": {"top1": 50.0}}


@pytest.fixture
def model(supernet, space):
    return supernet.materialize(space.largest).eval()


@pytest.fixture
def folder(model, tmp_path):
    save(model, tmp_path / "model", metrics=METRICS, split="search", seed=0)
    return tmp_path / "model"


def test_every_tensor_is_stored_once_and_nothing_else(model, folder):
    tensors = load_file(folder / "model.safetensors")
    stored = sum(t.numel() * t.element_size() for t in tensors.values())
    assert stored == sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    shared = [key for key in tensors if key.startswith("shared.")]
    layers = {layer for layer, tasks in model.sharing.layers if tasks}
    assert {key.removeprefix("shared.").rpartition(".")[0] for key in shared} == layers


def test_outputs_are_equal_bit_for_bit(model, folder):
    loaded = nasmvt.load(folder)
    assert loaded.tasks == ("cls", "det", "seg")
    for name in loaded.tasks:
        images, _ = make_batch(model.tasks[name].config.kind, size=3)
        with torch.inference_mode():
            ours, theirs = model.task(name)(images), loaded.task(name)(images)
        if name == "det":
            assert sum(len(found["boxes"]) for found in ours) > 0
            assert all(torch.equal(a[key], b[key]) for a, b in zip(ours, theirs, strict=True) for key in a)
        else:
            assert torch.equal(ours, theirs)


def test_shared_layers_of_a_loaded_model_are_one(model, folder):
    loaded = nasmvt.load(folder)
    assert loaded.model.sharing == model.sharing
    assert sum(p.numel() for p in loaded.model.parameters()) == sum(p.numel() for p in model.parameters())


def test_an_existing_folder_is_refused(model, folder):
    with pytest.raises(UserError, match=r"exists: give another --out"):
        save(model, folder, metrics=METRICS, split="search", seed=0)


def test_unknown_task_names_the_nearest(folder):
    with pytest.raises(UserError, match="did you mean 'cls'"):
        nasmvt.load(folder).task("clss")


def test_damage_is_named(folder, tmp_path):
    with pytest.raises(UserError, match="not an exported model"):
        nasmvt.load(tmp_path)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    key, value = next(iter(tensors.items()))
    save_file({**tensors, "cls.surplus": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"does not know: cls\.surplus"):
        nasmvt.load(folder)
    save_file({**tensors, key: torch.zeros(7)}, path)
    with pytest.raises(UserError, match=rf"{key} must have shape .* but is of shape \(7,\)"):
        nasmvt.load(folder)
    save_file({k: v for k, v in tensors.items() if k != key}, path)
    with pytest.raises(UserError, match=f"{key} must have shape .* but is missing"):
        nasmvt.load(folder)
    save_file({**tensors, key: value}, path)
    nasmvt.load(folder)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="can't be read"):
        nasmvt.load(folder)
    config = json.loads((folder / "config.json").read_text())
    for fixed, sentence in (({"stemmwidth": 8}, "did you mean 'stem_width'"), ({"stem_width": [8]}, "stem_width = ")):
        changed = {**config, "space": {**config["space"], "fixed": {**config["space"]["fixed"], **fixed}}}
        (folder / "config.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match=sentence):
            nasmvt.load(folder)
    (folder / "config.json").write_text(json.dumps({**config, "format": 99}))
    with pytest.raises(UserError, match="must be of format 1 to 3"):
        nasmvt.load(folder)
