"""What the order of importance is worth: subnets of a pretrained network before any training, with and without it.

EfficientNet-Lite0 with its published weights; a linear probe on the features of the whole network (CIFAR-10 mini, 96
pixels); then the subnets of half the expansion (3 of 6) and of two thirds (4) with that probe, and with one of their
own, BatchNorm statistics estimated anew as for a candidate of the search. That the whole network stays what it is is
checked in float64: in float32 the order of sums alone makes 2e-6. Deterministic, one thread, about six minutes of CPU.

    NASMVT_SHARED=../shared PYTHONPATH=. python benchmarks/importance.py [--images 2000] [--seed 0] [--only taylor]
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
from nasmvt.tasks.network import TaskNetwork
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


def features(network: TaskNetwork, data: TaskData, images: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pooled features and labels of training images."""
    for batch in data.recalibration_images(images):
        with torch.inference_mode():
            yield network.maps(batch.images)[-1].mean((2, 3)), torch.as_tensor(batch.targets)


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


def outputs(supernet: Supernet, seed: int) -> Tensor:
    """Return what the whole network computes for random images, in float64."""
    images = torch.rand(4, 3, 96, 96, generator=torch.Generator().manual_seed(derive_seed(seed, "images")))
    with torch.inference_mode():
        logits: Tensor = supernet.materialize(supernet.space.largest).task("cls").double().eval()(images.double())
    return logits


def begun(task: Task, space: SearchSpace) -> Supernet:
    """Return a supernet with the published weights."""
    supernet = Supernet(space, {"cls": task})
    begin_with(supernet, read_initial(InitialConfig(weights=str(load_yaml(WEIGHTS, "weights"))), supernet))
    return supernet


def main() -> None:
    """Measure and print a line per order: top-1 with the whole network's probe, and with the subnet's own."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=2000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", choices=SCORES, help="one order")
    args = options.parse_args()
    torch.set_num_threads(1)
    config = parse(TaskConfig, load_yaml(TASK, "task"), "task")
    data = TaskData("cls", config, args.seed)
    task, space = Task(name="cls", config=config, info=data.train.info), load_space("efficientnet_lite0")

    def top1(network: TaskNetwork) -> float:
        return round(evaluate(network, data.val_images(), task, "cpu")["top1"], 1)

    network = begun(task, space).materialize(space.largest).task("cls").eval()
    fitted = probe(list(features(network, data, args.images)), args.seed)
    network.head.fc.load_state_dict(fitted.state_dict())
    print(f"linear probe on the whole network: top-1 {top1(network)}", flush=True)
    for order in [args.only] if args.only else [None, *SCORES]:
        supernet = begun(task, space)
        supernet.networks["cls"].head.fc.load_state_dict(fitted.state_dict())
        whole = outputs(supernet, args.seed)
        if order == "taylor":
            loader = data.train_loader()
            gather_gradients(supernet, (("cls", loader.batch(step)) for step in range(4)))
        if order is not None:
            put_in_order(supernet, SCORES[order])
        off = float((outputs(supernet, args.seed) - whole).abs().max() / whole.abs().max())
        found = {}
        for expansion in (4, 3):
            network = supernet.materialize(narrowed(space, expansion)).task("cls").eval()
            recalibrate(network, data.recalibration_images(500), "cpu")
            with_its = top1(network)
            own = probe(list(features(network, data, args.images)), args.seed)
            network.head.fc.load_state_dict(own.state_dict())
            found[f"{expansion} of 6"] = (with_its, top1(network))
        print(f"{order or 'as published'}: top-1 {found}, whole network off by {off:.1e}", flush=True)


if __name__ == "__main__":
    main()
