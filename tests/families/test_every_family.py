"""What every family owes to the rest: one body of tests over small spaces."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import nasmvt
from nasmvt.cost import Costs, count_macs, count_parameters
from nasmvt.export import save
from nasmvt.families import family, published, published_names
from nasmvt.families.registry import FAMILIES
from nasmvt.resources import shipped
from nasmvt.space import load_space
from nasmvt.supernet import Supernet, SupernetConfig
from tests.conftest import make_batch, make_tasks, randomize
from tests.families.small_spaces import SMALL


@pytest.fixture(scope="module", params=SMALL)
def supernet(request) -> Supernet:
    torch.manual_seed(0)
    net = Supernet(SMALL[request.param], make_tasks(), SupernetConfig(score_start="uniform"))
    randomize(net)
    return net


def test_every_family_has_a_small_space() -> None:
    shipped_families = {name for name in FAMILIES if family(name).build.__module__.startswith("nasmvt.")}
    shipped_families -= {"timm"}  # its spaces are drafted
    assert {space.family for space in SMALL.values()} == shipped_families


def test_an_exported_model_computes_what_the_candidate_computes(supernet, tmp_path) -> None:
    rng = np.random.default_rng(0)
    for number, arch in enumerate((supernet.space.smallest, supernet.space.sample(rng), supernet.space.largest)):
        model = supernet.materialize(arch)
        save(model, tmp_path / str(number), metrics={}, split="none", seed=0)
        loaded = nasmvt.load(tmp_path / str(number))
        for name, task in supernet.tasks.items():
            images, _ = make_batch(task.config.kind, size=2)
            with torch.no_grad():
                ours, theirs = model.task(name).eval()(images), loaded.task(name)(images)
            if task.config.kind == "detection":
                assert all(torch.equal(a[key], b[key]) for a, b in zip(ours, theirs, strict=True) for key in a)
            else:
                assert torch.equal(ours, theirs)


def test_every_task_trains(supernet) -> None:
    """One step: finite losses, and a gradient for every parameter in use."""
    arch = supernet.space.sample(np.random.default_rng(1))
    for name, task in supernet.tasks.items():
        supernet.zero_grad()
        network = supernet.subnet(arch, name).train()
        loss = sum(network.loss(*make_batch(task.config.kind, size=4)).values())
        assert torch.isfinite(loss)
        loss.backward()
        own = dict(supernet.networks[name].named_parameters())
        shared = {key.replace("/", ".") for key, tensor in supernet.shared.items() if tensor.grad is not None}
        used = [name for name, _ in network.named_parameters() if name.startswith("backbone.")]
        assert used
        assert all(own[name].grad is not None or name in shared for name in used)


def test_tables_count_what_built_networks_hold(supernet) -> None:
    space, sharing = supernet.space, supernet.sharing()
    tasks = {name: supernet.tasks[name] for name in ("cls", "seg")}
    costs = Costs(space, tasks, sharing)
    rng = np.random.default_rng(2)
    for _ in range(5):
        arch = space.sample(rng)
        assert costs.parameters(arch) == count_parameters(space, tasks, arch, sharing)
        assert costs.macs("cls").of(arch)[0] == sum(count_macs(space, tasks["cls"], arch).values())


@pytest.mark.parametrize("name", SMALL)
def test_a_kind_that_a_family_does_not_know_gets_the_network_of_segmentation(name) -> None:
    space = SMALL[name]
    build = family(space.family).build
    with torch.device("meta"):
        segmentation, other = (
            build(space.largest, kind=kind, image_size=(64, 64), **space.fixed) for kind in ("segmentation", "panoptic")
        )
    assert (other.strides, other.widths) == (segmentation.strides, segmentation.widths)
    assert repr(other) == repr(segmentation)
    assert [(n, p.shape) for n, p in other.named_parameters()] == [
        (n, p.shape) for n, p in segmentation.named_parameters()
    ]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("kind", ["classification", "detection"])
def test_tracing_leaves_nothing_behind(name, kind) -> None:
    """A tensor cached outside of the network would be a fake one after the trace, and break the next call."""
    space = SMALL[name]
    network = family(space.family).build(space.smallest, kind=kind, image_size=(64, 64), **space.fixed).eval()
    randomize(network)
    images, other = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 96, 64)
    program = torch.export.export(network, (images,))
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        network(torch.empty(1, 3, 96, 64))
    with torch.no_grad():
        fresh = family(space.family).build(space.smallest, kind=kind, image_size=(64, 64), **space.fixed).eval()
        fresh.load_state_dict(network.state_dict())
        for x in (images, other):
            for got, want in zip(network(x), fresh(x), strict=True):
                assert torch.equal(got, want)
        for got, want in zip(program.module()(images), network(images), strict=True):
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize("name", shipped("search_spaces"))
def test_named_archs_of_a_space_fit_into_the_largest(name) -> None:
    space = load_space(name)
    build = family(space.family).build
    with torch.device("meta"):
        for arch in (space.smallest, *map(space.named, space.archs)):
            held = dict(build(space.largest, kind="detection", image_size=(64, 64), **space.fixed).named_parameters())
            for key, tensor in build(arch, kind="detection", image_size=(64, 64), **space.fixed).named_parameters():
                assert all(small <= large for small, large in zip(tensor.shape, held[key].shape, strict=True))


@pytest.mark.parametrize("name", published_names())
def test_published_networks_are_built_by_name(name) -> None:
    with torch.device("meta"):
        backbone = published(name, classes=None)
        assert len(backbone.widths) == len(backbone.strides)
        assert all(stride in (4, 8, 14, 16, 32) for stride in backbone.strides)
        assert sum(p.numel() for p in published(name, classes=7).parameters()) > sum(
            p.numel() for p in backbone.parameters()
        )
