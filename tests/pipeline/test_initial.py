"""Where initial weights come from, and what a run remembers of them."""

import huggingface_hub
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import device

from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.export import save
from nasmvt.pipeline.experiment import Experiment
from nasmvt.pipeline.initial import read_initial
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.supernet import build_supernet, load_supernet, resume_supernet, train_supernet
from nasmvt.space import load_space
from nasmvt.supernet import InitialConfig, Supernet
from nasmvt.supernet.initial import begin_with
from tests.conftest import TINY_SPACE, make_tasks, randomize, tiny_experiment
from tests.families.small_spaces import SMALL
from tests.families.timm_reference import random_timm

CPU = device("cpu")
FEW = {"steps": 2, "warmup_steps": 1, "checkpoint_every": 2, "log_every": 1, "recalibration_images": 8}


def experiment(**changes) -> Experiment:
    values = tiny_experiment(training=FEW, **changes)
    return parse(Experiment, {**values, "tasks": {name: values["tasks"][name] for name in ("cls", "seg")}}, "tiny")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory) -> Run:
    return train_supernet(experiment(), out=tmp_path_factory.mktemp("initial") / "earlier", device=CPU)


def test_a_run_begins_with_another_runs_supernet(earlier, tmp_path, monkeypatch) -> None:
    """Specific tensors are those that the task used, shared ones the shared; heads fit, too."""
    monkeypatch.chdir(earlier.path.parent)
    heard = []
    run = train_supernet(
        experiment(initial={"weights": "earlier"}, seed=1), out=tmp_path / "r", device=CPU, on_initial=heard.append
    )
    assert yaml.safe_load((run.path / "config.yaml").read_text())["initial"]["weights"] == str(earlier.path)
    assert heard[0].fresh == ()
    old, begun = load_supernet(earlier, CPU), build_supernet(run.experiment, run.infos)
    begin_with(begun, read_initial(run.experiment.initial, begun))
    used = old.materialize(old.space.largest)
    for name in old.tasks:
        theirs = used.task(name).state_dict()
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in begun.networks[name].state_dict().items())
    assert all(torch.equal(tensor, old.shared[key]) for key, tensor in begun.shared.items())


def test_changed_weights_are_refused_when_a_run_goes_on(earlier, tmp_path) -> None:
    model = load_supernet(earlier, CPU).materialize(earlier.experiment.space.largest)
    save(model, tmp_path / "old", metrics={}, split="none", seed=0)
    settings = experiment(initial={"weights": str(tmp_path / "old")})
    run = train_supernet(settings, out=tmp_path / "r", device=CPU)
    want = load_supernet(run, CPU).state_dict()
    for file in run.path.glob("supernet/checkpoint*"):
        file.unlink()
    resume_supernet(run, device=CPU)
    assert all(torch.equal(tensor, want[key]) for key, tensor in load_supernet(run, CPU).state_dict().items())
    for file in run.path.glob("supernet/checkpoint*"):
        file.unlink()
    with torch.no_grad():
        model.task("cls").head.fc.bias.add_(1)
    (tmp_path / "old").rename(tmp_path / "older")
    save(model, tmp_path / "old", metrics={}, split="none", seed=0)
    with pytest.raises(UserError, match="a run keeps the weights that it began with"):
        resume_supernet(run, device=CPU)


def test_an_export_of_other_tasks_and_a_smaller_arch_fills_its_part(earlier, tmp_path) -> None:
    old = load_supernet(earlier, CPU)
    model = old.materialize(old.space.smallest, tasks=("cls",))
    save(model, tmp_path / "old", metrics={}, split="none", seed=0)
    supernet = Supernet(old.space, make_tasks())
    randomize(supernet)
    filled = begin_with(supernet, read_initial(InitialConfig(weights=str(tmp_path / "old")), supernet))
    begun = supernet.materialize(old.space.smallest).task("seg").backbone.state_dict()
    theirs = model.task("cls").backbone.state_dict()
    assert all(torch.equal(begun[key], tensor) for key, tensor in theirs.items())
    assert filled.heads["seg"] == 0
    assert all(0 < part / whole < 1 for part, whole in filled.backbones.values())


def test_a_model_of_other_sizes_or_another_family_is_refused(earlier) -> None:
    config = InitialConfig(weights=str(earlier.path))
    fixed = {**TINY_SPACE["fixed"], "head_dim": 4}
    other = load_supernet(earlier, CPU).space.model_copy(update={"fixed": fixed})
    for space, message in (
        (other, "has head_dim = 8, not 4"),
        (SMALL["efficientnet"], "has family = vit_mvt, not efficientnet"),
    ):
        with pytest.raises(UserError, match=f"of the space's family and fixed sizes, but .* {message}"):
            read_initial(config, Supernet(space, make_tasks()))


def test_published_names_of_a_family_are_read_for_it_alone(supernet, tmp_path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="the family vit_mvt knows no published names"):
        read_initial(InitialConfig(weights=str(tmp_path / "a.safetensors")), supernet)
    with pytest.raises(UserError, match=r"there is no checkpoint .*b\.pth"):
        read_initial(InitialConfig(weights=str(tmp_path / "b.pth")), supernet)


@pytest.fixture(scope="module")
def lite0() -> Supernet:
    return Supernet(load_space("efficientnet_lite0"), make_tasks())


def test_timm_is_asked_by_name_and_for_networks_that_fit(lite0, monkeypatch, caplog) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    name = "tf_efficientnet_lite0"
    for model, message in (
        ("efficientnet_lit0", "must be a name that timm knows, not 'efficientnet_lit0'; did you mean 'efficientnet_li"),
        ("resnet18.a1_in1k", r"timm's resnet18.a1_in1k is none of efficientnet_lite0 \(published, largest\): of"),
        (f"{name}.no_tag", f"timm publishes no weights under the name '{name}.no_tag'"),
        (f"{name}.in1k", f"the weights of {name}.in1k can be neither downloaded nor found in timm's cache"),
    ):
        with pytest.raises(UserError, match=message):
            read_initial(InitialConfig(weights="timm", model=model), lite0)
    reference = random_timm(name)
    others = random_timm("efficientnet_lite0")
    monkeypatch.setattr("timm.create_model", lambda asked, pretrained=False: others)
    with pytest.raises(UserError, match=r"must compute what efficientnet_lite0\.ra_in1k computes, .* other features"):
        read_initial(InitialConfig(weights="timm", model="efficientnet_lite0.ra_in1k"), lite0)
    monkeypatch.setattr("timm.create_model", lambda asked, pretrained=False: reference)
    initial = read_initial(InitialConfig(weights="timm", model=f"{name}.in1k"), lite0)
    assert torch.equal(initial.tensors["cls"]["backbone.conv_head.weight"], reference.conv_head.weight)
    assert "backbone.conv_head.weight" not in initial.tensors["det"]
    assert "unlike those of task cls: set data.mean and data.std" in caplog.text


def test_a_model_is_for_timm_alone() -> None:
    for values in ({"weights": "timm"}, {"weights": "a.pth", "model": "resnet18"}):
        with pytest.raises(UserError, match="weights: timm needs the name of a model, and a path needs none"):
            experiment(initial=values)
