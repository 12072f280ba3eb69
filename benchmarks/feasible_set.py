"""Seconds and peak memory of `FeasibleSet` on a ResNet-50 space whose residual widths couple all blocks of a stage.

Widths of the four stages and their depths are choices made once, hidden widths are made per block. Tables are derived
first and not timed; then the set is counted at a budget half-way between the smallest and the largest network, and
archs are drawn. Single process; memory is what the process gains at its peak.

    python benchmarks/feasible_set.py [--widths 4] [--hidden 3] [--draws 10000]
"""

import argparse
import resource
import time

import numpy as np

from nasmvt.config import parse
from nasmvt.cost import FeasibleSet
from nasmvt.cost.tables import ItemTables
from nasmvt.space import Arch, SearchSpace

DEPTHS = (3, 4, 6, 3)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--widths", type=int, default=4, help="options of every stage's width")
    arguments.add_argument("--hidden", type=int, default=3, help="options of every block's hidden width")
    arguments.add_argument("--draws", type=int, default=10_000)
    given = arguments.parse_args()
    space = coupled_resnet50(given.widths, given.hidden)
    items = ItemTables(space, tensor_sizes)
    tables = items.add_up([dict.fromkeys(items.slots, 1)])
    least, most = (int(tables.of(arch)[0]) for arch in (space.smallest, space.largest))
    before = _peak()
    started = time.perf_counter()
    found = FeasibleSet(tables, [(least + most) // 2])
    size = found.size
    counted = time.perf_counter()
    drawn = found.sample_indices(given.draws, np.random.default_rng(0))
    ended = time.perf_counter()
    within = (tables(drawn)[:, 0] <= found.bounds_V[0]).mean()
    print(
        f"{size:.6g} of {space.size:.6g} archs: counted in {counted - started:.2f} s, {given.draws:,} drawn in "
        f"{ended - counted:.2f} s ({within:.0%} within), {(_peak() - before) / 2**30:.2f} GB"
    )


def coupled_resnet50(widths: int = 4, hidden: int = 3) -> SearchSpace:
    """Return a space around ResNet-50 with so many options of every stage's width and every block's hidden width."""
    choices: dict[str, object] = {"stem": [32, 64]}
    for stage, depth in enumerate(DEPTHS, start=1):
        full = 128 << stage
        choices[f"width{stage}"] = [full - full // 16 * step for step in reversed(range(widths))]
        choices[f"depth{stage}"] = list(range(2, depth + 1))
        options = [full // 4 - full // 32 * step for step in reversed(range(hidden))]
        choices[f"hidden{stage}"] = {"options": options, "per": f"depth{stage}"}
    return parse(SearchSpace, {"name": "coupled_resnet50", "family": "none", "choices": choices}, "coupled_resnet50")


def tensor_sizes(arch: Arch) -> dict[str, int]:
    """Return the elements of every weight of the network of an arch: bottleneck blocks, norms and a classifier."""
    inputs = arch["stem"]
    sizes = {"stem": 49 * 3 * inputs + 2 * inputs}
    for stage in range(1, len(DEPTHS) + 1):
        width = arch[f"width{stage}"]
        sizes[f"{stage}.shortcut"] = inputs * width + 2 * width
        for block, hidden in enumerate(arch[f"hidden{stage}"]):
            sizes[f"{stage}.{block}.conv1"] = inputs * hidden + 2 * hidden
            sizes[f"{stage}.{block}.conv2"] = 9 * hidden * hidden + 2 * hidden
            sizes[f"{stage}.{block}.conv3"] = hidden * width + 2 * width
            inputs = width
    return {**sizes, "classifier": 1000 * inputs + 1000}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
