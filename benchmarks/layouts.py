"""Training steps with channels last over the same steps with channels first, by family; CPU time, one thread.

The smallest arch of each space, classification; both layouts take turns on one network.

    PYTHONPATH=. python benchmarks/layouts.py [SPACE ...] [--side 224] [--batch 4] [--rounds 5]
"""

import argparse
import statistics
import time

import torch

from benchmarks.supernet_step import classification, total
from nasmvt.seeding import seeded
from nasmvt.space import load_space
from nasmvt.tasks.build import build_network

SPACES = (
    "vit_mvt_tiny", "vit_tiny", "convnext_tiny", "efficientnet_lite0", "lvt_nano", "mpvit_nano", "scalable_vit_nano",
    "vitae_v2_nano",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spaces", nargs="*", default=SPACES)
    parser.add_argument("--side", type=int, default=224, help="height and width of images in pixels")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.spaces:
        space = load_space(name)
        with seeded("benchmark"):
            images, targets = torch.rand(given.batch, 3, given.side, given.side), torch.zeros(given.batch).long()
            network = build_network(space, classification("cls", given.side), space.smallest).train()
        found: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(given.rounds + 1):  # the first warms up
            for last, times in found.items():
                network.zero_grad(set_to_none=True)
                begun = time.process_time()
                with network.laid_out(last), seeded("step"):
                    total(network.loss(images, targets)).backward()
                times.append(time.process_time() - begun)
        ratios = [b / a for a, b in zip(found[False][1:], found[True][1:], strict=True)]
        line = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name}: channels last take {line} of {statistics.median(found[False][1:]) * 1e3:.0f} ms", flush=True)


if __name__ == "__main__":
    main()
