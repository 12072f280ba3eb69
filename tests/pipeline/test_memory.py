"""What a step takes is known before it is taken."""

import json

import pytest
from typer.testing import CliRunner

from nasmvt.cli.main import app
from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.pipeline.datasets import infos_of, open_data
from nasmvt.pipeline.experiment import Experiment
from nasmvt.pipeline.memory import step_memory
from nasmvt.pipeline.supernet import build_supernet
from nasmvt.yaml_text import dump_yaml
from tests.conftest import tiny_experiment


def of(**training):
    values = tiny_experiment()
    return parse(Experiment, {**values, "training": {**values["training"], **training}}, "tiny")


def test_the_parts_of_a_step() -> None:
    experiment = of(ema=0.9)
    memory = step_memory(experiment)
    supernet = build_supernet(experiment, infos_of(open_data(experiment)))
    sizes = sum(parameter.nbytes for parameter in supernet.parameters())
    assert memory.weights == memory.averages == sizes + sum(buffer.nbytes for buffer in supernet.buffers())
    assert memory.gradients == sizes
    count = sum(1 for _ in supernet.parameters())
    assert memory.optimizer == 2 * sizes + 4 * count  # AdamW: two means, and the number of steps
    assert memory.images == {"cls": 4, "det": 2, "seg": 2}
    assert memory.total == 5 * sizes + 2 * (memory.weights - sizes) + 4 * count + max(memory.activations.values())


def test_parts_take_less_and_batches_that_are_no_multiple_are_refused() -> None:
    whole, half = step_memory(of()), step_memory(of(accumulate=2, optimizer="sgd"))
    assert all(half.activations[name] < 0.9 * size for name, size in whole.activations.items())
    assert half.optimizer == half.gradients  # momentum
    with pytest.raises(UserError, match="'batch_size' of the task 'cls' is 4: make it a multiple of 3"):
        step_memory(of(), processes=3)


def test_the_command(tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text(dump_yaml(tiny_experiment()))
    (tmp_path / "space.yaml").write_text(dump_yaml(tiny_experiment()["space"]))
    command = ["profile", str(tmp_path / "space.yaml"), "--experiment", str(tmp_path / "mine.yaml"), "--memory"]
    result = CliRunner().invoke(app, [*command, "--json", str(tmp_path / "out.json")])
    assert result.exit_code == 0, result.output
    assert "memory of a training step" in result.output
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["total"] > found["weights"] > 0
    result = CliRunner().invoke(app, [*command, "--arch", "smallest"])
    assert result.exit_code == 2
    assert "--memory measures the largest arch" in " ".join(result.output.split())
