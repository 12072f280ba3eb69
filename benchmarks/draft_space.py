"""Draft spaces of timm's networks and check them: python -m benchmarks.draft_space [NAME ...]

For each network, with random weights and small images: the published arch computes what timm's network computes, bit
for bit, for classification and dense prediction; parameters counted by tables are those of built networks; the smallest
arch trains on three tasks, with the supernet's slices.
"""

import sys
import time
from dataclasses import dataclass

import numpy as np
import timm
import torch

from nasmvt.config import parse
from nasmvt.cost import Costs
from nasmvt.data import DataInfo
from nasmvt.data.types import Batch
from nasmvt.drafting import Drafted, draft
from nasmvt.errors import UserError
from nasmvt.families import family
from nasmvt.families.layers import Classifier
from nasmvt.space import SearchSpace
from nasmvt.supernet import Supernet
from nasmvt.tasks.build import build_network
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.network import whole_infos
from nasmvt.tasks.task import Task

NETWORKS = (
    *("resnet18", "resnet50", "resnext50_32x4d", "seresnet50", "regnety_008", "repvgg_a0", "densenet121", "vgg11_bn"),
    *(
        "mobilenetv2_100",
        "mobilenetv3_large_100",
        "efficientnet_b0",
        "ghostnet_100",
        "convnext_atto",
        "convnextv2_atto",
    ),
    *("vit_tiny_patch16_224", "deit3_small_patch16_224", "swin_tiny_patch4_window7_224", "pvt_v2_b0", "mobilevit_xs"),
    *("edgenext_xx_small", "coatnet_0_rw_224", "maxvit_tiny_tf_224", "poolformer_s12", "mixer_s16_224"),
    *("convmixer_768_32", "hrnet_w18_small"),
)
CLASSES = ("one", "two", "three")


@dataclass(frozen=True)
class Checked:
    """What was found."""

    choices: int
    networks: float
    parameters: tuple[int, int]
    equal: bool
    """Whether the published arch computes what timm's network computes, bit for bit."""
    exact: bool
    """Whether tables count what networks have, and the published one has as many as timm's."""
    trains: bool


def side_of(drafted: Drafted) -> int:
    """Return a small side of images that a network reads."""
    fixed = drafted.values["fixed"]
    stride = int(fixed["maps"]["levels"][0]["stride"])
    if len(fixed["maps"]["levels"]) == 1:
        return 4 * stride if stride % 4 == 0 else 8 * stride
    return 224 if fixed.get("sized") and not fixed.get("any_size") else 64


def make_tasks(drafted: Drafted, side: int) -> dict[str, Task]:
    """Return three tasks with small heads."""
    maps = drafted.values["fixed"]["maps"]["levels"]
    stride = int(maps[-1]["stride"])
    strides = [stride // 2, stride] if stride % 2 == 0 else [stride]
    first = stride // 4 if stride % 4 == 0 else strides[0]
    flat = len(maps) == 1
    levels = {"strides": strides} if flat else {}
    pyramid = {"strides": [first * scale for scale in (1, 2, 4, 8)]} if flat else {}
    regions = {"width": 16, "box_convs": 1, "box_hidden": 16, "mask_convs": 1, "rpn_batch": 16, "roi_batch": 8}
    kept = {"pre_nms": [40, 40], "post_nms": [10, 10], "detections": 5, "anchor_scale": 3}
    pixels = {"channels": 16, "pool_scales": [1, 2], "aux_channels": 8, **pyramid}
    heads = {"classification": {}, "detection": {**regions, **kept, **levels}, "segmentation": pixels}
    found = {}
    for name, kind in (("cls", "classification"), ("det", "detection"), ("seg", "segmentation")):
        values = {"kind": kind, "data": {"image_size": side}, "batch_size": 2, "head": heads[kind]}
        info = DataInfo(kind=kind, classes=CLASSES, has_masks=kind == "detection")
        found[name] = Task(name=name, config=parse(TaskConfig, values, name), info=info)
    return found


def reference(drafted: Drafted, side: int) -> torch.nn.Module:
    """Return timm's network with random weights, in which nothing is equal by chance."""
    fixed = drafted.values["fixed"]
    size = {"img_size": side} if fixed.get("sized") else {}
    network = timm.create_model(fixed["model"], num_classes=0, **fixed.get("settings", {}), **size).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                drawn = torch.rand(tensor.shape, generator=generator) - 0.5
                tensor.copy_(1 + drawn * 0.2 if name.endswith("running_var") else tensor + drawn * 0.05)
    return network


def equals_timm(drafted: Drafted, space: SearchSpace, side: int) -> bool:
    """Return whether the published arch computes what timm's network computes, bit for bit."""
    network, chosen = reference(drafted, side), family(space.family)
    images = torch.randn(2, 3, side, side)
    equal = True
    for kind in ("classification", "segmentation"):
        arch = space.named("published")
        ours = chosen.build(arch, kind=kind, image_size=(side, side), **space.fixed).eval()
        assert chosen.convert is not None
        converted = chosen.convert(network.state_dict(), Classifier(ours, torch.nn.Identity()))
        given = {name.removeprefix("backbone."): tensor for name, tensor in converted.items()}
        ours.load_state_dict({name: given[name] for name in ours.state_dict()})
        with torch.no_grad():
            maps = ours(images)
            if kind == "classification":
                theirs = [network(images)[:, :, None, None]]
                count = sum(p.numel() for p in ours.parameters())
                equal &= count == sum(p.numel() for p in network.parameters())
            else:
                options = {"norm": True} if ours.norm else {}
                theirs = network.forward_intermediates(
                    images, indices=list(ours.indices), intermediates_only=True, **options
                )
        equal &= len(maps) == len(theirs) and all(torch.equal(a, b) for a, b in zip(maps, theirs, strict=True))
        equal &= [each.shape[1] for each in maps] == list(ours.widths)
    return equal


def counts_exactly(space: SearchSpace, tasks: dict[str, Task], supernet: Supernet, archs: int = 1) -> bool:
    """Return whether tables count the parameters of networks as they are, for classification and segmentation."""
    tasks = {name: task for name, task in tasks.items() if name != "det"}
    costs = Costs(space, tasks, supernet.sharing("none"))
    rng = np.random.default_rng(0)
    for arch in (space.smallest, space.largest, *(space.sample(rng) for _ in range(archs))):
        built = sum(sum(p.numel() for p in build_network(space, task, arch).parameters()) for task in tasks.values())
        if costs.parameters(arch).total != built:
            return False
    return True


def batch_of(kind: str, side: int) -> Batch:
    """Return random images and targets of a training batch."""
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    if kind == "classification":
        return Batch(images=images, targets=torch.tensor([0, 2]), infos=whole_infos(images))
    if kind == "segmentation":
        return Batch(images=images, targets=torch.randint(0, 3, (2, side, side)), infos=whole_infos(images))
    masks = torch.zeros(1, side, side, dtype=torch.bool)
    masks[:, 4:20, 6:24] = True
    target = {"boxes": torch.tensor([[6.0, 4, 24, 20]]), "labels": torch.tensor([1]), "masks": masks}
    return Batch(images=images, targets=[target] * 2, infos=whole_infos(images))


def trains(supernet: Supernet, tasks: dict[str, Task], side: int) -> bool:
    """Return whether losses of the smallest arch are finite, and every tensor of its backbones gets a gradient."""
    model = supernet.materialize(supernet.space.smallest, supernet.sharing("none"))
    for name, task in tasks.items():
        batch, network = batch_of(task.config.kind, side), model.task(name).train()
        total = torch.stack(list(network.loss(batch.images, batch.targets, batch.infos).values())).sum()
        total.backward()
        tensors = [p for n, p in network.named_parameters() if n.startswith("backbone.") and p.requires_grad]
        if not total.isfinite() or any(tensor.grad is None for tensor in tensors):
            return False
    return True


def check(name: str) -> Checked:
    """Draft the space of a network and check it.

    Raises:
        UserError: if it is refused.
    """
    torch.manual_seed(0)
    drafted = draft(name)
    space, side = drafted.space(name), side_of(drafted)
    tasks = make_tasks(drafted, side)
    supernet = Supernet(space, tasks)
    return Checked(
        sum(len(choice.options) > 1 for choice in space.choices.values()),
        float(space.size),
        drafted.parameters,
        equals_timm(drafted, space, side),
        counts_exactly(space, tasks, supernet),
        trains(supernet, tasks, side),
    )


def main() -> None:
    """Print a row for each network."""
    print(f"{'network':32} {'M, smallest':>11} {'published':>9} choices   space  equal  exact  trains  seconds")
    for name in sys.argv[1:] or NETWORKS:
        began = time.perf_counter()
        try:
            found = check(name)
        except UserError as error:
            print(f"{name:32} refused: {error}", flush=True)
            continue
        small, large = (count / 1e6 for count in found.parameters)
        print(
            f"{name:32} {small:11.2f} {large:9.2f} {found.choices:7} {found.networks:7.0e} {found.equal!s:>6} "
            f"{found.exact!s:>6} {found.trains!s:>7} {time.perf_counter() - began:8.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
