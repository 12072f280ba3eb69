"""A run whose kernels are transformed: it resumes, another run begins with it, its architectures are exported."""

import pytest
import torch

from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.export import load, save
from nasmvt.pipeline.experiment import Experiment
from nasmvt.pipeline.initial import read_initial
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.supernet import build_supernet, load_supernet, resume_supernet, train_supernet
from nasmvt.supernet.initial import begin_with
from tests.conftest import tiny_experiment
from tests.pipeline.test_main_job import CPU, Stop, StopAt, assert_equal, weights
from tests.supernet.test_kernels import KERNEL, make_space

STEP = f"{KERNEL}_5to3"


def experiment(on: bool = True, **changes) -> Experiment:
    values = tiny_experiment(supernet={"kernel_transformations": on, "score_start": 0.4}, **changes)
    space = {"name": "kernels", **make_space().model_dump(exclude={"name"}, mode="json")}
    tasks = {name: values["tasks"][name] for name in ("cls", "seg")}
    return parse(Experiment, {**values, "space": space, "tasks": tasks}, "kernels")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return train_supernet(experiment(), out=tmp_path_factory.mktemp("kernels") / "run", device=CPU)


def test_matrices_are_trained_and_a_resumed_run_has_those_of_an_uninterrupted_one(run, tmp_path) -> None:
    with pytest.raises(Stop):
        train_supernet(experiment(), out=tmp_path / "run", device=CPU, listener=StopAt(5))
    crashed = Run.open(tmp_path / "run")
    resume_supernet(crashed, device=CPU)
    trained = weights(run.folder("supernet"))
    assert_equal(weights(crashed.folder("supernet")), trained)
    assert not torch.equal(trained[f"networks.cls.{STEP}"], torch.eye(9))


def test_another_run_begins_with_them_and_one_without_is_refused(run) -> None:
    initial = {"weights": str(run.path)}
    old, begun = load_supernet(run, CPU), build_supernet(experiment(initial=initial, seed=1), run.infos)
    filled = begin_with(begun, read_initial(experiment(initial=initial).initial, begun))
    assert filled.fresh == ()
    for name in old.state_dict():
        if "to3" in name or "to5" in name:
            assert torch.equal(begun.state_dict()[name], old.state_dict()[name])
    without = build_supernet(experiment(on=False, initial=initial), run.infos)
    with pytest.raises(UserError, match=r"but supernet\.kernel_transformations is off: turn it on"):
        read_initial(experiment(initial=initial).initial, without)


def test_an_exported_model_is_the_candidate(run, tmp_path) -> None:
    """Bit for bit, and the folder knows nothing of transformations."""
    supernet = load_supernet(run, CPU)
    candidate = supernet.materialize(supernet.space.smallest)
    save(supernet.materialize(supernet.space.smallest), tmp_path / "model", metrics={}, split="none", seed=0)
    loaded = load(tmp_path / "model").model
    assert loaded.tensors().keys() == candidate.tensors().keys()
    assert all(torch.equal(tensor, loaded.tensors()[key]) for key, tensor in candidate.tensors().items())
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        for task in supernet.tasks:
            assert torch.equal(loaded.task(task).eval()(images), candidate.task(task).eval()(images))
