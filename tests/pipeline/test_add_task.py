"""A finished model takes on one more task, and its old outputs stay."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import nasmvt
from nasmvt.errors import UserError
from nasmvt.export import save
from nasmvt.pipeline.add_task import Addition, add_task
from nasmvt.space import Sharing
from nasmvt.training.checkpoint import Checkpoint
from tests.conftest import make_batch

CPU = torch.device("cpu")
TRAINING = {"steps": 3, "evaluate_every": 3, "evaluation_images": 4, "lr": 0.01, "warmup_steps": 0}
TASK = {"kind": "classification", "data": {"image_size": 32}, "batch_size": 4, "eval_batch_size": 8}


class StopAt:
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, step, steps, losses, lr):
        if step == self.step:
            raise RuntimeError("crash")

    def on_evaluation(self, step, metrics):
        pass


@pytest.fixture
def folder(supernet, space, tmp_path) -> Path:
    """A model of which some layers are shared by all, some by two tasks, some by nobody."""
    layers = list(supernet.sharing("all").layers)
    cut = {layer: tasks[: (3, 2, 0)[place % 3]] for place, (layer, tasks) in enumerate(layers)}
    model = supernet.materialize(space.largest, Sharing.of(cut)).eval()
    save(model, tmp_path / "model", metrics={"cls": {"top1": 50.0}}, split="search", seed=0)
    return tmp_path / "model"


def addition(tmp_path: Path, **changes) -> Addition:
    path = tmp_path / "fourth.yaml"
    path.write_text(yaml.safe_dump({"tasks": {"fourth": TASK}, "training": TRAINING, **changes}))
    return Addition.read(path)


def outputs(model, name: str):
    images, _ = make_batch(model.tasks[name].config.kind, size=3)
    with torch.inference_mode():
        return model.task(name)(images)


@pytest.mark.parametrize("rule", ["learned", "all", "none"])
def test_old_outputs_and_tensors_stay_bit_for_bit(folder, tmp_path, rule):
    added = add_task(folder, addition(tmp_path, sharing=rule), out=tmp_path / "four", device=CPU)
    before, after = nasmvt.load(folder).model, nasmvt.load(tmp_path / "four").model
    assert list(after.tasks) == ["cls", "det", "seg", "fourth"]
    for name in before.tasks:
        ours, theirs = outputs(before, name), outputs(after, name)
        if name == "det":
            assert all(torch.equal(a[key], b[key]) for a, b in zip(ours, theirs, strict=True) for key in a)
        else:
            assert torch.equal(ours, theirs)
    old, new = load_file(folder / "model.safetensors"), load_file(tmp_path / "four" / "model.safetensors")
    assert all(torch.equal(tensor, new[key]) for key, tensor in old.items())
    surplus = {key: tensor for key, tensor in new.items() if key not in old}
    assert all(key.startswith("fourth.") for key in surplus)
    parameters = sum(p.numel() for p in after.parameters()) - sum(p.numel() for p in before.parameters())
    assert added.after.total - added.before.total == parameters
    sharing = after.sharing.to_dict()
    used = {layer for layer, tasks in sharing.items() if "fourth" in tasks}
    shareable = {layer for layer, tasks in before.sharing.to_dict().items() if tasks}
    assert used <= shareable
    assert rule == "learned" or used == (shareable if rule == "all" else set())
    config = json.loads((tmp_path / "four" / "config.json").read_text())
    assert config["metrics"]["cls"] == {"top1": 50.0}
    assert config["metrics"]["fourth"] == added.metrics
    assert outputs(after, "fourth").shape == (3, len(after.tasks["fourth"].info.classes))


def test_scores_are_learned(folder, tmp_path):
    add_task(folder, addition(tmp_path), out=tmp_path / "four", device=CPU)
    weights = Checkpoint.load(tmp_path / "four-training" / "task" / "checkpoint.pt").weights
    scores = {key.removeprefix("scores."): float(value) for key, value in weights.items() if key.startswith("scores.")}
    assert len({score for score in scores.values() if score != 0.5}) > 5
    sharing = nasmvt.load(tmp_path / "four").model.sharing.to_dict()
    used = {layer for layer, tasks in sharing.items() if "fourth" in tasks}
    assert used == {key.replace("/", ".") for key, score in scores.items() if score > 0.5}


def test_a_bound_on_what_is_added_shares_the_highest_scores(folder, tmp_path):
    def added(name: str, **changes) -> int:
        found = add_task(folder, addition(tmp_path, **changes), out=tmp_path / name, device=CPU)
        return found.after.total - found.before.total

    least, most = added("all", sharing="all"), added("none", sharing="none")
    bound = (least + most) // 2
    assert least < added("bound", max_added=bound) <= bound
    weights = Checkpoint.load(tmp_path / "bound-training" / "scores" / "checkpoint.pt").weights
    scores = {
        key.removeprefix("scores.").replace("/", "."): float(value)
        for key, value in weights.items()
        if key.startswith("scores.")
    }
    sharing = nasmvt.load(tmp_path / "bound").model.sharing.to_dict()
    used = {layer for layer, tasks in sharing.items() if "fourth" in tasks}
    assert min(scores[layer] for layer in used) >= max(score for layer, score in scores.items() if layer not in used)
    with pytest.raises(UserError, match=f"below the {least:,} of the task's neck, head"):
        added("less", max_added=least - 1)
    with pytest.raises(UserError, match="remove one of the two"):
        added("none", max_added=bound, sharing="all")


def test_patterns_name_parameters_as_in_any_training(folder, tmp_path):
    settings = addition(tmp_path, sharing="none", training={**TRAINING, "freeze": ["backbone.**"]})
    add_task(folder, settings, out=tmp_path / "four", device=CPU)
    before, after = nasmvt.load(folder).model, nasmvt.load(tmp_path / "four").model
    ours, frozen = before.task("cls").state_dict(), after.task("fourth").state_dict()
    moved = {key for key in ours if ours[key].shape == frozen[key].shape and not torch.equal(ours[key], frozen[key])}
    assert not any(key.startswith("backbone.") and "running" not in key and "num_batches" not in key for key in moved)


def test_it_begins_like_a_task_of_the_model(folder, tmp_path):
    settings = addition(tmp_path, like="cls", sharing="none", training={**TRAINING, "lr": 1e-12})
    add_task(folder, settings, out=tmp_path / "four", device=CPU)
    before, after = nasmvt.load(folder).model, nasmvt.load(tmp_path / "four").model
    ours, copied = before.task("cls").state_dict(), after.task("fourth").state_dict()
    fresh = {"head.fc.weight", "head.fc.bias"}  # of 5 classes, not 3
    assert {key for key, tensor in ours.items() if tensor.shape != copied[key].shape} <= fresh
    for key in ours.keys() - fresh:
        assert "running" in key or "num_batches" in key or torch.allclose(copied[key], ours[key], atol=1e-9)


def test_interrupted_and_resumed_it_is_the_same(folder, tmp_path):
    settings = addition(tmp_path, training={**TRAINING, "checkpoint_every": 1})
    add_task(folder, settings, out=tmp_path / "whole", device=CPU)
    with pytest.raises(RuntimeError, match="crash"):
        add_task(folder, settings, out=tmp_path / "cut", device=CPU, listener=StopAt(2))
    with pytest.raises(UserError, match="pass --resume to continue that training"):
        add_task(folder, settings, out=tmp_path / "cut", device=CPU)
    with pytest.raises(UserError, match="is of another model or other settings"):
        add_task(folder, addition(tmp_path, sharing="none"), out=tmp_path / "cut", device=CPU, resume=True)
    add_task(folder, settings, out=tmp_path / "cut", device=CPU, resume=True)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())


def test_what_can_not_be_added_is_refused(folder, tmp_path):
    def refused(settings: Addition, **options) -> str:
        with pytest.raises(UserError) as caught:
            add_task(folder, settings, out=tmp_path / "four", device=CPU, **options)
        assert not (tmp_path / "four").exists()
        assert not (tmp_path / "four-training").exists()
        return str(caught.value)

    assert "has a task 'cls' already" in refused(addition(tmp_path, tasks={"cls": TASK}))
    assert "did you mean 'cls'" in refused(addition(tmp_path, like="clss"))
    assert "leave --resume out" in refused(addition(tmp_path), resume=True)
    with pytest.raises(UserError, match="one task is added at a time"):
        addition(tmp_path, tasks={"a": TASK, "b": TASK})
    with pytest.raises(UserError, match="a task that is added trains one arch, but 'sampling' is 'sandwich'"):
        addition(tmp_path, training={**TRAINING, "sampling": "sandwich"})
    with pytest.raises(UserError, match="exists: give another --out"):
        add_task(folder, addition(tmp_path), out=folder, device=CPU)
