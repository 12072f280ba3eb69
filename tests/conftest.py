"""A space, tasks and a supernet of a few thousand parameters, for the tests of every room."""

import os

import pytest
import torch

from nasmvt.config import parse
from nasmvt.cost import Costs
from nasmvt.data import DataInfo
from nasmvt.space import SearchSpace, Sharing
from nasmvt.supernet import Supernet, SupernetConfig
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.task import Task

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (Ray's own spelling); at Ray's 15, workers hardly start while the other tests compute
torch.set_num_threads(1)  # networks are tiny, and threads that wait spin

TINY_SPACE = {
    "name": "tiny",
    "family": "vit_mvt",
    "choices": {
        "depth": [4, 5],
        "embed_dim": [16, 24],
        "num_heads": {"options": [1, 2], "per": "depth"},
        "mlp_ratio": {"options": [1, 2], "per": "depth"},
    },
    "fixed": {"head_dim": 8, "patch_size": 8, "stem_width": 8, "window_size": 4, "drop_path": 0.0},
}

TINY_TASKS = {
    "cls": {"kind": "classification", "data": {"image_size": 32}, "batch_size": 4},
    "det": {
        "kind": "detection",
        "data": {"image_size": 32},
        "batch_size": 2,
        "head": {
            "width": 16,
            "strides": [4, 8],
            "anchor_scale": 3,
            "rpn_convs": 1,
            "box_convs": 1,
            "box_hidden": 16,
            "mask_convs": 1,
            "rpn_batch": 16,
            "roi_batch": 8,
            "pre_nms": [40, 40],
            "post_nms": [10, 10],
            "detections": 5,
        },
    },
    "seg": {
        "kind": "segmentation",
        "data": {"image_size": 32},
        "batch_size": 2,
        "head": {"channels": 16, "strides": [4, 8, 8, 16], "pool_scales": [1, 2], "aux_channels": 8},
    },
}

CLASSES = ("one", "two", "three")


def make_tasks() -> dict[str, Task]:
    tasks = {}
    for name, values in TINY_TASKS.items():
        config = parse(TaskConfig, values, name)
        info = DataInfo(kind=config.kind, classes=CLASSES, has_masks=config.kind == "detection")
        tasks[name] = Task(name=name, config=config, info=info)
    return tasks


def make_batch(kind: str, size: int = 2, seed: int = 0):
    """Random images and targets of a training batch."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (size, 3, 32, 32), generator=generator, dtype=torch.uint8)
    if kind == "classification":
        return images, torch.randint(0, 3, (size,), generator=generator)
    if kind == "segmentation":
        return images, torch.randint(0, 3, (size, 32, 32), generator=generator)
    masks = torch.zeros(1, 32, 32, dtype=torch.bool)
    masks[:, 4:20, 6:24] = True
    target = {"boxes": torch.tensor([[6.0, 4, 24, 20]]), "labels": torch.tensor([1]), "masks": masks}
    if kind == "panoptic":
        target["semantic"] = torch.where(masks[0], 1, 2)
    return images, [target] * size


def randomize(module: torch.nn.Module, seed: int = 0) -> None:
    """Draw every parameter and statistic anew, norms and biases too, so that nothing is equal by chance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if name.startswith("scores") or not tensor.is_floating_point():
                continue
            drawn = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(drawn * 0.2 + 0.9 if "running_var" in name else (drawn - 0.5) * 0.3)


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    """Make what a test draws repeatable."""
    torch.manual_seed(0)


@pytest.fixture
def space() -> SearchSpace:
    return parse(SearchSpace, TINY_SPACE, "tiny")


@pytest.fixture
def tasks() -> dict[str, Task]:
    return make_tasks()


@pytest.fixture(scope="session")
def tiny_costs() -> Costs:
    """Costs of the tiny space, measured once: `tiny_costs.under(sharing)`."""
    return Costs(parse(SearchSpace, TINY_SPACE, "tiny"), make_tasks(), Sharing.of({}))


@pytest.fixture
def supernet(space, tasks) -> Supernet:
    torch.manual_seed(0)
    net = Supernet(space, tasks, SupernetConfig(score_start="uniform"))
    randomize(net)
    return net


def tiny_experiment(**changes) -> dict:
    """Plain values of an experiment that trains in a second on the built-in data set."""
    data = {"image_size": 32, "train_images": 24, "val_images": 6, "search_fraction": 0.25}
    tasks = {name: {**values, "data": {**values["data"], **data}} for name, values in TINY_TASKS.items()}
    training = {"steps": 6, "warmup_steps": 2, "checkpoint_every": 3, "log_every": 1, "recalibration_images": 8}
    search = {"population": 3, "parents": 2, "generations": 2, "mutants": 2, "crossovers": 1, "workers": 0}
    return {
        "name": "tiny",
        "space": TINY_SPACE,
        "tasks": tasks,
        "training": training,
        "retrain": {**training, "steps": 3},
        "search": {**search, "recalibration_images": 8},
        **changes,
    }


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which no C++ compiler works."""
    from torch._inductor.exc import InvalidCxxCompiler  # takes a second

    def fail() -> None:
        raise InvalidCxxCompiler("no-such-compiler")

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", fail)
