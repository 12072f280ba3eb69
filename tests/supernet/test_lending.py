"""Which tensors a subnet is lent, and where its gradients go."""

import copy

import numpy as np
import pytest
import torch

from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.space import Role, SearchSpace
from nasmvt.space.sharing import layer_of
from nasmvt.supernet import Supernet, SupernetConfig
from tests.conftest import TINY_SPACE, make_batch

LAYER = "backbone.blocks.1.fc1"
KEY = LAYER.replace(".", "/")


def run(supernet, arch, task):
    network = supernet.subnet(arch, task).train()
    torch.manual_seed(0)
    sum(network.loss(*make_batch(supernet.tasks[task].config.kind)).values()).backward()
    return network


def test_every_parameter_and_buffer_is_the_leading_slice_of_its_name(supernet, space):
    arch = space.sample(np.random.default_rng(3))
    sharing = supernet.sharing()
    for task in supernet.tasks:
        stored = dict(supernet.networks[task].named_parameters())
        for name, value in supernet.subnet(arch, task).named_parameters():
            shared = task in sharing.tasks(layer_of(name))
            source = supernet.shared[name.replace(".", "/")] if shared else stored[name]
            assert torch.equal(value, source[tuple(slice(n) for n in value.shape)])
        statistics = dict(supernet.networks[task].named_buffers())
        for name, value in supernet.subnet(arch, task).named_buffers():
            assert torch.equal(value, statistics[name][tuple(slice(n) for n in value.shape)])


@pytest.mark.parametrize("score", [0.9, 0.1])
def test_only_the_chosen_tensor_gets_a_gradient(supernet, space, score):
    with torch.no_grad():
        supernet.scores[KEY].fill_(score)
    run(supernet, space.largest, "cls")
    shared = supernet.shared[f"{KEY}/weight"].grad
    own = supernet.networks["cls"].get_parameter(f"{LAYER}.weight").grad
    other_task = supernet.networks["seg"].get_parameter(f"{LAYER}.weight").grad
    chosen, idle = (shared, own) if score > 0.5 else (own, shared)
    assert chosen.abs().sum() > 0
    assert idle is None
    assert other_task is None


@pytest.mark.parametrize("score", [0.9, 0.1])
def test_score_gradient_is_the_inner_product_summed_over_weight_bias_and_tasks(supernet, space, score):
    with torch.no_grad():
        supernet.scores[KEY].fill_(score)
    expected = 0.0
    for task in ("cls", "seg"):
        supernet.zero_grad()
        run(supernet, space.smallest, task)
        for leaf in ("weight", "bias"):
            shared = supernet.shared[f"{KEY}/{leaf}"]
            own = supernet.networks[task].get_parameter(f"{LAYER}.{leaf}")
            gradient = (shared if score > 0.5 else own).grad
            expected += (gradient * (shared - own)).sum().item()
    supernet.zero_grad()
    run(supernet, space.smallest, "cls")
    run(supernet, space.smallest, "seg")
    assert supernet.scores[KEY].grad.item() == pytest.approx(expected, rel=1e-4)


def test_scores_of_blocks_that_an_arch_lacks_get_no_gradient(supernet, space):
    run(supernet, space.smallest, "cls")
    assert supernet.scores["backbone/blocks/4/fc1"].grad is None
    assert supernet.scores["backbone/blocks/3/fc1"].grad is not None


def test_gradients_stay_inside_the_slice(supernet, space):
    run(supernet, space.smallest, "cls")
    grad = supernet.networks["cls"].get_parameter("backbone.patch_embed.weight").grad
    assert grad[:16].abs().sum() > 0
    assert grad[16:].abs().sum() == 0


def test_batchnorm_updates_its_slice_of_the_tasks_own_statistics(supernet, space):
    name = "backbone.stage_convs.0.bn1.running_mean"
    before = supernet.networks["det"].get_buffer(name).clone()
    stem = {task: net.get_buffer("backbone.stem.1.running_mean").clone() for task, net in supernet.networks.items()}
    run(supernet, space.smallest, "det")
    after = supernet.networks["det"].get_buffer(name)
    assert (after[:16] != before[:16]).all()
    assert torch.equal(after[16:], before[16:])
    for task, net in supernet.networks.items():
        assert torch.equal(net.get_buffer("backbone.stem.1.running_mean"), stem[task]) == (task != "det")


def test_a_lent_network_is_the_callers_alone(supernet, space):
    """Whoever still holds a network of one arch is not disturbed by what is lent or done to another."""
    held = supernet.subnet(space.largest, "cls").eval()
    tensors = dict(held.named_parameters())
    images, _ = make_batch("classification")
    before = held(images)
    others = [supernet.subnet(arch, task) for arch in (space.largest, space.smallest) for task in supernet.tasks]
    for other in others:
        other.train().register_forward_hook(lambda *_: 1 / 0)
        other.backbone.stem[0].padding = (0, 0)
        other.backbone.blocks[0].attn.num_heads = 1
        del other.backbone.blocks[1]
    assert not {id(module) for module in held.modules()} & {id(m) for other in others for m in other.modules()}
    assert not held.training
    assert all(tensors[name] is tensor for name, tensor in held.named_parameters())
    assert torch.equal(held(images), before)


def test_two_archs_of_one_step_train_as_each_alone(supernet, space):
    batch = make_batch("segmentation")
    alone, losses = [], []
    for arch in (space.largest, space.smallest):
        supernet.zero_grad()
        run(supernet, arch, "seg")
        alone.append({name: p.grad.clone() for name, p in supernet.named_parameters() if p.grad is not None})
    supernet.zero_grad()
    for network in [supernet.subnet(arch, "seg").train() for arch in (space.largest, space.smallest)]:
        torch.manual_seed(0)
        losses.append(sum(network.loss(*batch).values()))
    sum(losses).backward()
    for name, parameter in supernet.named_parameters():
        expected = [grads[name] for grads in alone if name in grads]
        assert (parameter.grad is None) == (not expected)
        if expected:
            torch.testing.assert_close(parameter.grad, sum(expected))


def test_a_step_uses_the_modules_again_once_backward_has_come_back(supernet, space):
    lender, sharing, batch = supernet.lenders["cls"], supernet.sharing(), make_batch("classification")
    first = lender.lend_for_step(space.largest, sharing)
    first.backbone.stem[0].padding, first.backbone.surplus = (0, 0), 1
    first.eval()
    second = lender.lend_for_step(space.largest, sharing)
    assert not set(first.modules()) & set(second.modules())
    sum(second.loss(*batch).values()).backward()
    second.backbone.stem[0].padding, second.backbone.surplus = (0, 0), 1
    second.eval()
    third = lender.lend_for_step(space.largest, sharing)
    assert set(third.modules()) == set(second.modules())
    assert third.training
    assert third.backbone.stem[0].padding != (0, 0)
    assert not hasattr(third.backbone, "surplus")


def test_a_copy_of_a_supernet_in_training_trains_itself_alone(supernet, space):
    images, targets = make_batch("classification")
    sum(supernet.network_for_step(space.smallest, "cls").loss(images, targets).values()).backward()
    supernet.zero_grad()
    copied = copy.deepcopy(supernet)
    sum(copied.network_for_step(space.smallest, "cls").loss(images, targets).values()).backward()
    assert copied.networks["cls"].backbone.patch_embed.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in supernet.parameters())


def test_what_is_frozen_gets_no_gradient(supernet, space):
    supernet.networks["cls"].backbone.patch_embed.requires_grad_(False)
    network = run(supernet, space.smallest, "cls")
    assert not network.backbone.patch_embed.weight.requires_grad
    assert network.backbone.stem[0].weight.requires_grad
    assert supernet.networks["cls"].backbone.patch_embed.weight.grad is None


def test_a_score_per_layer_and_task(space, tasks):
    net = Supernet(space, tasks, SupernetConfig(granularity="layer_task", score_start=0.6))
    with torch.no_grad():
        net.scores[KEY][1] = 0.2
    assert net.sharing().tasks(LAYER) == ("cls", "seg")
    assert net.sharing().tasks("backbone.blocks.0.fc1") == ("cls", "det", "seg")
    torch.nn.init.zeros_(net.networks["det"].get_parameter(f"{LAYER}.weight"))
    run(net, space.largest, "det")
    grad = net.scores[KEY].grad
    assert grad[1] != 0
    assert grad[0] == grad[2] == 0


@pytest.mark.parametrize("granularity", ["layer", "layer_task"])
def test_sharing_is_read_from_the_scores_or_given_by_a_rule(space, tasks, granularity):
    roles = {"backbone.blocks.*.fc1": "adaptive", "backbone.norm": "shared"}
    space = space.model_copy(update={"roles": {name: Role(role) for name, role in roles.items()}})
    net = Supernet(space, tasks, SupernetConfig(granularity=granularity, score_start=0.5))
    with torch.no_grad():
        net.scores["backbone/blocks/2/fc1"][-1] = 0.6
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    every = ["cls", "det", "seg"]
    fixed = {"backbone.norm": every}
    layers = [f"backbone.blocks.{block}.fc1" for block in range(5)]
    above = every if granularity == "layer" else ["seg"]
    learned = {layer: above if layer == "backbone.blocks.2.fc1" else [] for layer in layers}
    assert net.sharing().to_dict() == fixed | learned
    assert net.sharing("learned") == net.sharing()
    assert net.sharing("all").to_dict() == fixed | dict.fromkeys(layers, every)
    assert net.sharing("none").to_dict() == fixed | {layer: [] for layer in layers}
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_specific_weights_start_as_copies_of_the_shared_one(space, tasks):
    net = Supernet(space, tasks, SupernetConfig())
    for key, shared in net.shared.items():
        for network in net.networks.values():
            own = network.get_parameter(key.replace("/", "."))
            assert torch.equal(own, shared)
            assert own.data_ptr() != shared.data_ptr()


def test_roles_by_pattern(tasks):
    roles = {
        "backbone.blocks.**": "shared",
        "backbone.blocks.*.attn": "specific",
        "backbone.blocks.*.fc1": "adaptive",  # not blocks.*.se.fc1: a star does not cross a dot
    }
    net = Supernet(parse(SearchSpace, {**TINY_SPACE, "roles": roles}, "tiny"), tasks)
    assert set(net.scores) == {f"backbone/blocks/{i}/fc1" for i in range(5)}
    norms = [network.get_parameter("backbone.blocks.0.norm1.weight") for network in net.networks.values()]
    assert norms[0] is norms[1] is norms[2]
    tables = [network.get_parameter("backbone.blocks.0.attn.relative_bias") for network in net.networks.values()]
    assert tables[0] is not tables[2]
    names = [name for name, _ in net.named_parameters()]
    assert sum(name.endswith("blocks.0.norm1.weight") for name in names) == 1


def test_a_shared_layer_of_two_shapes_is_refused_by_name(tasks):
    roles = {"backbone.blocks.*.attn": "shared"}  # detection's table is that of a window
    uneven = parse(SearchSpace, {**TINY_SPACE, "fixed": {**TINY_SPACE["fixed"], "window_size": 3}, "roles": roles}, "x")
    with pytest.raises(UserError, match=r"backbone\.blocks\.0\.attn\.relative_bias.*make it specific"):
        Supernet(uneven, tasks)


def test_unknown_fixed_size_names_the_nearest():
    space = parse(SearchSpace, {**TINY_SPACE, "fixed": {"head_dims": 8}}, "x")
    with pytest.raises(UserError, match="did you mean 'head_dim'"):
        Supernet(space, {})
