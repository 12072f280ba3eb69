"""Three tasks on an LVT without BatchNorm, whose losses are means over images: parts sum up to the whole."""

from pathlib import Path

import torch

from nasmvt.config import parse
from nasmvt.pipeline.datasets import infos_of, open_data
from nasmvt.pipeline.experiment import Experiment
from nasmvt.pipeline.supernet import build_supernet
from nasmvt.training import Trainer
from nasmvt.training.checkpoint import Checkpoints
from nasmvt.training.metrics import MetricsLog
from nasmvt.training.processes import ALONE, Processes

SPACE = {
    "name": "lvt",
    "family": "lvt",
    "choices": {
        "embed_dim1": [8, 16],
        "embed_dim2": [16],
        "embed_dim3": [16],
        "embed_dim4": [16, 24],
        "depth1": [1],
        "depth2": [1],
        "depth3": [1, 2],
        "depth4": [1],
        "recursions": [1],
        **{f"mlp_ratio{stage}": [1, 2] for stage in (1, 2, 3, 4)},
    },
    "fixed": {"head_dim": 8, "sr_ratios": [1, 4, 2, 1], "drop_path": 0.0},
}
DATA = {"image_size": 32, "train_images": 24, "val_images": 6, "search_fraction": 0.25}
DETECTOR = {
    "masks": False,
    "width": 16,
    "box_convs": 0,
    "box_hidden": 16,
    "anchor_scale": 3,
    "rpn_batch": 16,
    "roi_batch": 8,
    "pre_nms": [60, 60],
    "post_nms": [40, 40],
    "detections": 5,
}
TASKS = {
    "cls": {"kind": "classification", "data": DATA, "batch_size": 4},
    "det": {"kind": "detection", "data": {**DATA, "masks": False}, "batch_size": 2, "head": DETECTOR},
    "seg": {
        "kind": "segmentation",
        "data": DATA,
        "batch_size": 2,
        "head": {
            "channels": 16,
            "pool_scales": [1, 2],
            "norm": "group",
            "aux_weight": 0,
            "loss_over": "all",
            "dropout": 0,
        },
    },
}


def in_order(count: int, **options) -> torch.Tensor:
    """Stand in for `torch.randperm`: torchvision then samples regions without chance."""
    return torch.arange(count, **options)


def make(folder: Path, processes: Processes = ALONE, **settings) -> Trainer:
    """Return a trainer of its supernet."""
    training = {"steps": 20, "warmup_steps": 2, "optimizer": "sgd", "lr": 0.05, "log_every": 5, **settings}
    values = {"name": "equal", "space": SPACE, "tasks": TASKS, "training": training}
    experiment = parse(Experiment, values, "equal")
    data = open_data(experiment)
    return Trainer(
        build_supernet(experiment, infos_of(data)),
        {name: item.train_loader() for name, item in data.items()},
        experiment.training,
        seed=0,
        metrics=MetricsLog(folder / "metrics.jsonl"),
        checkpoints=Checkpoints(folder / "checkpoint.pt"),
        device=torch.device("cpu"),
        processes=processes,
    )


def difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of two weights over the largest weight."""
    largest = max(value.abs().max().item() for value in first.values())
    return max((first[name] - second[name]).abs().max().item() for name in first) / largest
