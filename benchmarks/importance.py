"""What the order of importance is worth: subnets of a pretrained network before any training, with and without it.

EfficientNet-Lite0 with its published weights; a linear probe on the features of the whole network (CIFAR-10 mini, 96
pixels); then the subnets of half the expansion (3 of 6) and of two thirds (4) with that probe, BatchNorm statistics
estimated anew as for a candidate of the search. Deterministic, one thread, about three minutes.

    NASMVT_SHARED=../shared PYTHONPATH=. python benchmarks/importance.py [--images 2000] [--seed 0]
"""

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nasmvt.config import parse
from nasmvt.pipeline.datasets import TaskData
from nasmvt.pipeline.initial import read_initial
from nasmvt.seeding import derive_seed, seeded
from nasmvt.space import Arch, SearchSpace, load_space
from nasmvt.supernet import InitialConfig, Supernet
from nasmvt.supernet.importance import SCORES, gather_gradients, put_in_order
from nasmvt.supernet.initial import begin_with
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.evaluate import evaluate
from nasmvt.tasks.recalibrate import recalibrate
from nasmvt.tasks.task import Task
from nasmvt.yaml_text import load_yaml

TASK = """
kind: classification
data:
  format: imagefolder
  root: ${NASMVT_SHARED:-../shared}/data/cls_cifar10
  image_size: 96
  mean: [0.5, 0.5, 0.5]
  std: [0.5, 0.5, 0.5]
  augmentation: {auto_augment: null, crop_scale: 1, erasing: 0, mixup: 0, cutmix: 0, hflip: 0}
batch_size: 50
eval_batch_size: 50
"""
WEIGHTS = "${NASMVT_SHARED:-../shared}/weights/efficientnet_lite0.safetensors"


def narrowed(space: SearchSpace, expansion: int) -> Arch:
    """Return the published arch with another expansion in every block."""
    values = space.named("published").to_dict()
    for name, given in values.items():
        if name.startswith("expansion") and isinstance(given, list):
            values[name] = [expansion] * len(given)
    return space.arch(values)


def features(network: nn.Module, data: TaskData, images: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pooled features and labels of training images."""
    for batch in data.recalibration_images(images):
        with torch.inference_mode():
            yield network.maps(batch.images)[-1].mean((2, 3)), torch.as_tensor(batch.targets)  # type: ignore[operator]


def probe(known: list[tuple[Tensor, Tensor]], seed: int) -> nn.Linear:
    """Fit a linear layer to features."""
    x, y = (torch.cat(parts).clone() for parts in zip(*known, strict=True))
    with seeded(seed, "probe"):
        layer = nn.Linear(x.shape[1], int(y.max()) + 1)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2, weight_decay=0.1)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 300)
        optimizer.zero_grad()
        nn.functional.cross_entropy(layer(x), y, label_smoothing=0.1).backward()
        optimizer.step()
    return layer


def main() -> None:
    """Measure and print a line per order."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=2000)
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    torch.set_num_threads(1)
    config, weights = parse(TaskConfig, load_yaml(TASK, "task"), "task"), str(load_yaml(WEIGHTS, "weights"))
    data = TaskData("cls", config, args.seed)
    task, space = Task(name="cls", config=config, info=data.train.info), load_space("efficientnet_lite0")
    fitted: nn.Linear | None = None
    whole: Tensor | None = None
    for order in (None, *SCORES):
        supernet = Supernet(space, {"cls": task})
        begin_with(supernet, read_initial(InitialConfig(weights=weights), supernet))
        network = supernet.materialize(space.largest).task("cls").eval()
        if fitted is None:
            fitted = probe(list(features(network, data, args.images)), args.seed)
        supernet.networks["cls"].head.fc.load_state_dict(fitted.state_dict())
        if order == "taylor":
            loader = data.train_loader()
            gather_gradients(supernet, (("cls", loader.batch(step)) for step in range(4)))
        if order is not None:
            put_in_order(supernet, SCORES[order])
        images = torch.rand(4, 3, 96, 96, generator=torch.Generator().manual_seed(derive_seed(args.seed, "images")))
        with torch.inference_mode():
            outputs = supernet.materialize(space.largest).task("cls").eval()(images)
        whole = outputs if whole is None else whole
        off = float((outputs - whole).abs().max() / whole.abs().max())
        found = {}
        for name, arch in (("full", space.largest), ("4 of 6", narrowed(space, 4)), ("3 of 6", narrowed(space, 3))):
            network = supernet.materialize(arch).task("cls").eval()
            if arch != space.largest:
                recalibrate(network, data.recalibration_images(500), "cpu")
            found[name] = evaluate(network, data.val_images(), task, "cpu")["top1"]
        print(f"{order or 'as published':>14}: {found}, full network off by {off:.1e}", flush=True)


if __name__ == "__main__":
    main()
