"""Compare networks that timm publishes with ours of the same name: python -m benchmarks.parity [SECONDS [NAME ...]]

Random weights, small images of two sizes: parameters and logits against timm's. Without names: every
network of timm's modules whose classes families know, up to 60 million parameters, the smallest first. Names whose
networks are the same are compared once. Stops after so many seconds of CPU time (default: 900).
"""

import sys
import time
from collections.abc import Iterator
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from nasmvt.errors import UserError
from nasmvt.families import published
from nasmvt.families.published import entry_of
from nasmvt.families.timm_networks import skeleton

MODULES = ("vision_transformer", "deit", "convnext", "efficientnet")
LARGEST = 60e6
SIDES = (64, 96)


def candidates() -> Iterator[tuple[int, str]]:
    """Yield numbers of parameters and names."""
    for module in MODULES:
        for name in timm.list_models(module=module):
            yield sum(parameter.numel() for parameter in skeleton(name).parameters()), name


def reference(name: str) -> nn.Module:
    """Return timm's network with random weights, in which nothing is equal by chance."""
    settings: dict[str, Any] = {"num_classes": 10}
    plain = skeleton(name)
    if isinstance(plain, VisionTransformer):
        patch = plain.patch_embed.patch_size[0]
        settings |= {"dynamic_img_size": True, "img_size": SIDES[-1] // patch * patch}
    network: nn.Module = timm.create_model(name, **settings).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if tensor.is_floating_point() and key.endswith("running_var"):
                tensor.copy_(0.9 + 0.2 * torch.rand(tensor.shape, generator=generator))
            elif tensor.is_floating_point() and (tensor.ndim == 1 or key.endswith(("pos_embed", "_token"))):
                tensor.add_(0.2 * torch.rand(tensor.shape, generator=generator) - 0.1)
    return network


def off(name: str) -> float:
    """Return how much logits differ at most, of the largest of them; infinity: parameters differ.

    Raises:
        UserError: if no family makes the network.
    """
    theirs = reference(name)
    patch, size = 1, {}
    if isinstance(theirs, VisionTransformer):
        patch, size = theirs.patch_embed.patch_size[0], {"image_size": theirs.patch_embed.img_size}
    ours = published(name, classes=10, weights=theirs.state_dict(), **size).eval()
    if sum(p.numel() for p in ours.parameters()) != sum(p.numel() for p in theirs.parameters()):
        return float("inf")
    worst = 0.0
    for side in SIDES:
        images = torch.randn(1, 3, *[side // patch * patch] * 2, generator=torch.Generator().manual_seed(side))
        with torch.inference_mode():
            a, b = ours(images), theirs(images)
        worst = max(worst, float((a - b).abs().max() / b.abs().max()))
    return worst


def main() -> None:
    """Print what differs and what is refused, and how many are equal."""
    limit, names = float(sys.argv[1]) if sys.argv[1:] else 900.0, sys.argv[2:]
    if not names:
        names = [name for count, name in sorted(candidates()) if count <= LARGEST]
    known: dict[str, str] = {}
    equal, same, refused, differing = 0, 0, 0, 0
    for place, name in enumerate(names):
        if time.process_time() > limit:
            print(f"out of time: {len(names) - place} names are left, from {name} on")
            break
        try:
            entry = entry_of(name)
            key = f"{entry.build} {sorted((k, str(v)) for k, v in entry.sizes.items() if k != 'image_size')}"
            if key in known:
                same += 1
                continue
            known[key] = name
            found = off(name)
        except UserError as error:
            refused += 1
            print(f"{name:44} refused: {str(error).partition('but ')[2].partition(': take')[0]}", flush=True)
            continue
        equal += found <= 1e-5
        differing += found > 1e-5
        print(f"{name:44} {found:.1e}{'' if found <= 1e-5 else '  DIFFERS'}", flush=True)
    print(f"{equal} equal, {same} the same as one of these, {refused} refused, {differing} differ")


if __name__ == "__main__":
    main()
