"""Task networks that hold their shared tensors in common."""

import torch

from nasmvt.model import MultiTaskModel
from nasmvt.space import Sharing
from tests.conftest import make_batch

SHARED = "backbone.blocks.2.fc1"
SHARING = Sharing.of({SHARED: ("cls", "seg"), "backbone.blocks.3.fc2": ("cls", "det", "seg")})


def test_fresh_weights_are_tied_as_the_sharing_says(space, tasks):
    torch.manual_seed(0)
    model = MultiTaskModel.fresh(space, tasks, space.smallest, SHARING)
    of = {task: model.task(task).get_parameter(f"{SHARED}.weight") for task in tasks}
    assert of["cls"] is of["seg"]
    assert of["cls"] is not of["det"]
    assert of["cls"].std() > 0
    assert model.key("cls", f"{SHARED}.weight") == f"shared.{SHARED}.weight"
    assert model.key("det", f"{SHARED}.weight") == f"det.{SHARED}.weight"


def test_gradients_of_a_shared_tensor_are_the_sum_over_its_tasks(space, tasks):
    torch.manual_seed(0)
    model = MultiTaskModel.fresh(space, tasks, space.smallest, SHARING).train()
    weight = model.task("cls").get_parameter(f"{SHARED}.weight")
    found = []
    for chosen in (("cls",), ("seg",), ("cls", "seg")):
        model.zero_grad()
        for task in chosen:
            torch.manual_seed(1)
            sum(model.task(task).loss(*make_batch(tasks[task].config.kind)).values()).backward()
        found.append(weight.grad.clone())
    torch.testing.assert_close(found[0] + found[1], found[2])


def test_state_dict_round_trip(space, tasks):
    models = [MultiTaskModel.fresh(space, tasks, space.smallest, SHARING) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for key, tensor in models[0].tensors().items():
        assert torch.equal(tensor, models[1].tensors()[key])
    assert models[1].task("cls").get_parameter(f"{SHARED}.weight") is models[1].task("seg").get_parameter(
        f"{SHARED}.weight"
    )
