"""A compiled network is the same network: its weights, names, losses and gradients."""

import copy

import pytest
import torch

from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.pipeline.experiment import Experiment, load_experiment
from nasmvt.seeding import seeded
from nasmvt.space import load_space
from nasmvt.tasks.build import build_network
from nasmvt.tasks.compiled import check_compiler, compile_network
from nasmvt.training import TrainingConfig
from tests.conftest import make_batch, make_tasks


def test_a_compiled_network_computes_the_same():
    space = load_space("vit_mvt_nano")
    with seeded("network"):
        plain = build_network(space, make_tasks()["cls"], space.smallest).train()
    compiled = copy.deepcopy(plain)
    compile_network(compiled, backend="eager")  # traced as with any, without the minutes of a C++ compiler
    found = []
    for network in (plain, compiled):
        with seeded("step"):
            losses = network.loss(*make_batch("classification", 2))
        sum(losses.values()).backward()
        found.append([*losses.values(), *(parameter.grad for parameter in network.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    torch.compiler.reset()


def test_a_missing_compiler_is_named(no_compiler):
    with pytest.raises(UserError, match=r"^retrain.compile needs a C\+\+ compiler on cpu, but none works here"):
        check_compiler("cpu", "retrain.compile")


def test_where_compiling_is_no_use_it_is_refused():
    with pytest.raises(UserError, match=r"runs other archs in every step, .* set retrain.compile"):
        load_experiment("shapes", ["training.compile=true"])
    assert load_experiment("shapes", ["retrain.compile=true"]).retrain.compile
    values = load_experiment("shapes").model_dump(mode="json")
    values["retrain"].update(compile=True, activation_checkpointing=True)
    with pytest.raises(UserError, match="doesn't go with 'activation_checkpointing': leave one of them out"):
        parse(Experiment, values, "mine.yaml")
    assert not TrainingConfig().compile
