"""Learned transformations of kernels: where they lie, what they change, who shares them."""

import copy

import pytest
import torch
import torch.nn.functional as F

from nasmvt.config import parse
from nasmvt.cost import Costs
from nasmvt.errors import UserError
from nasmvt.space import Arch, Role, SearchSpace, Sharing
from nasmvt.supernet import Supernet, SupernetConfig
from nasmvt.supernet.added import AddedTask
from nasmvt.supernet.kernels import transformed
from nasmvt.supernet.lending import part
from nasmvt.tasks.task import Task
from tests.conftest import make_batch, make_tasks, randomize
from tests.families.small_spaces import SMALL, WITHOUT_NANO

STAGE = 3
"""The stage whose second block only deep networks have."""
LAYER = f"backbone.blocks.{STAGE}.0.conv_dw"
KERNEL = f"{LAYER}.weight"
STEPS = [f"{KERNEL}_7to5", f"{KERNEL}_5to3"]
ON = SupernetConfig(kernel_transformations=True, score_start=0.5)


def make_space(role: Role = Role.ADAPTIVE) -> SearchSpace:
    values = copy.deepcopy(WITHOUT_NANO["efficientnet"])
    values["choices"][f"kernel_size{STAGE}"]["options"] = [3, 5, 7]
    return parse(SearchSpace, {"name": "k", "family": "efficientnet", "roles": {LAYER: role}, **values}, "k")


def with_side(space: SearchSpace, side: int) -> Arch:
    """Return the largest arch with kernels of one side in the stage."""
    return space.arch({**space.largest.to_dict(), f"kernel_size{STAGE}": [side, side]})


def moved(supernet: Supernet) -> Supernet:
    """Return a supernet in which no tensor, and no matrix, is equal to another by chance."""
    randomize(supernet)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            if "to3" in name or "to5" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return supernet


def kernel_of(model: torch.nn.Module, task: str) -> torch.Tensor:
    return model.task(task).get_parameter(KERNEL).detach()


def test_matrices_are_those_of_the_steps_that_a_layer_has() -> None:
    """Also in a block that shallow archs lack; nothing else differs from a supernet without them."""
    space = make_space()
    plain, supernet = Supernet(space, make_tasks()).state_dict(), Supernet(space, make_tasks(), ON)
    more = {name: tensor for name, tensor in supernet.state_dict().items() if name not in plain}
    assert len(supernet.state_dict()) == len(plain) + len(more)
    own = [f"networks.cls.{name}" for name in (*STEPS, STEPS[0].replace(".0.conv", ".1.conv"))]
    assert {*own, f"shared.{STEPS[1].replace('.', '/')}"} <= more.keys()
    assert all(torch.equal(matrix, torch.eye(len(matrix))) for matrix in more.values())
    assert not any(item.decays for item in supernet.trained() if item.name in more)


@pytest.mark.parametrize("side", [3, 5])
def test_it_begins_as_the_middle(side) -> None:
    """Bit for bit, in networks of steps and in copies."""
    supernet = Supernet(make_space(), make_tasks(), ON)
    arch = with_side(supernet.space, side)
    for rule in ("all", "none"):
        sharing = supernet.sharing(rule)
        stored = supernet.lenders["seg"].stored(KERNEL, rule == "all")
        middle = part(stored, torch.Size((*stored.shape[:2], side, side)), (2, 3))
        assert torch.equal(kernel_of(supernet.materialize(arch, sharing), "seg"), middle)
        assert torch.equal(dict(supernet.subnet(arch, "seg", sharing).named_parameters())[KERNEL], middle)


def test_a_kernel_of_3_is_made_in_two_steps() -> None:
    supernet = moved(Supernet(make_space(), make_tasks(), ON))
    stored, first, second = (supernet.lenders["cls"].stored(name, False).detach() for name in (KERNEL, *STEPS))
    five = F.linear(stored[..., 1:-1, 1:-1].flatten(2), first).unflatten(2, (5, 5))
    three = F.linear(five[..., 1:-1, 1:-1].flatten(2), second).unflatten(2, (3, 3))
    for side, expected in ((7, stored), (5, five), (3, three)):
        found = kernel_of(supernet.materialize(with_side(supernet.space, side), supernet.sharing("none")), "cls")
        torch.testing.assert_close(found, expected)
    assert transformed(stored, []) is stored


def loss_of(supernet: Supernet, arch: Arch, task: str) -> torch.Tensor:
    torch.manual_seed(0)
    network = supernet.network_for_step(arch, task)
    return torch.stack(list(network.loss(*make_batch(supernet.tasks[task].config.kind)).values())).sum()


@pytest.mark.parametrize("score", [0.9, 0.1])
def test_gradients_reach_the_matrices_of_the_kernel_in_use(score) -> None:
    """As many as its steps, those of the tensor that the score chooses, and the score itself."""
    supernet = moved(Supernet(make_space(), make_tasks(), ON))
    key, score_key = (name.replace(".", "/") for name in (KERNEL, LAYER))
    for side, used in ((7, 0), (5, 1), (3, 2)):
        supernet.zero_grad()
        with torch.no_grad():
            supernet.scores[score_key].fill_(score)
        loss_of(supernet, with_side(supernet.space, side), "cls").backward()
        expected = 0.0
        for place, leaf in enumerate(("weight", "weight_7to5", "weight_5to3")):
            shared = supernet.shared[f"{key.removesuffix('weight')}{leaf}"]
            own = supernet.networks["cls"].get_parameter(f"{LAYER}.{leaf}")
            chosen, idle = (shared, own) if score > 0.5 else (own, shared)
            assert idle.grad is None
            assert (chosen.grad is not None) == (place <= used)
            if place <= used:
                assert chosen.grad.abs().sum() > 0
                expected += float((chosen.grad * (shared - own).detach()).sum())
        assert supernet.scores[score_key].grad.item() == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_gradients_are_those_of_the_formula() -> None:
    """Against finite differences, through the network of a step."""
    supernet = moved(Supernet(make_space(Role.SPECIFIC), make_tasks(), ON)).double()
    arch = with_side(supernet.space, 3)

    def loss() -> torch.Tensor:
        torch.manual_seed(0)
        images, targets = make_batch("classification")
        network = supernet.network_for_step(arch, "cls").eval()
        return F.cross_entropy(network(images.double() / 255), targets)

    loss().backward()
    for name in (KERNEL, *STEPS):
        stored = supernet.lenders["cls"].stored(name, False)
        place = tuple(side // 2 for side in stored.shape)
        with torch.no_grad():
            values = []
            for by in (1e-5, -2e-5):
                stored[place] += by
                values.append(loss().item())
            stored[place] += 1e-5
        assert stored.grad[place].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4)


def test_a_shared_layer_shares_its_transformation() -> None:
    space = make_space(Role.SHARED)
    supernet = moved(Supernet(space, make_tasks(), ON))
    for name in (KERNEL, *STEPS):
        assert len({id(network.get_parameter(name)) for network in supernet.networks.values()}) == 1
    model = supernet.materialize(with_side(space, 3))
    assert model.task("cls").get_parameter(KERNEL) is model.task("seg").get_parameter(KERNEL)
    adaptive = moved(Supernet(make_space(), make_tasks(), ON))
    arch = with_side(adaptive.space, 3)
    tied = adaptive.materialize(arch, Sharing.of({**adaptive.sharing("none").to_dict(), LAYER: ("cls", "det")}))
    assert torch.equal(kernel_of(tied, "cls"), kernel_of(tied, "det"))
    assert not torch.equal(kernel_of(tied, "cls"), kernel_of(tied, "seg"))


def test_networks_have_transformed_kernels_and_no_matrices() -> None:
    """They are counted as without; another task is added to such a model as to any."""
    space, tasks = make_space(), make_tasks()
    supernet = moved(Supernet(space, tasks, ON))
    plain = Supernet(space, tasks)
    arch, sharing = with_side(space, 3), supernet.sharing("all")
    model = supernet.materialize(arch, sharing)
    assert model.tensors().keys() == plain.materialize(arch, plain.sharing("all")).tensors().keys()
    assert sum(p.numel() for p in model.parameters()) == Costs(space, tasks, sharing).parameters(arch).total
    again = supernet.materialize(arch, sharing).tensors()
    assert all(torch.equal(tensor, again[key]) for key, tensor in model.tensors().items())
    more = AddedTask(model, Task(name="new", config=tasks["cls"].config, info=tasks["cls"].info))
    assert torch.equal(kernel_of(more.model(), "new"), kernel_of(model, "cls"))


def test_a_space_without_kernels_of_several_sides_is_refused() -> None:
    with pytest.raises(UserError, match=r"needs a family with kernels of several sides, but .* has none: leave it out"):
        Supernet(SMALL["convnext"], make_tasks(), ON)
