"""Curves of a training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nasmvt.files import atomic


def plot_curves(path: Path, entries: Sequence[Mapping[str, Any]], primaries: Mapping[str, str]) -> None:
    """Draw losses (above) and main metrics (below) of every task, as a PNG file.

    Args:
        path: the file.
        entries: what the training recorded; without losses nothing is drawn.
        primaries: the main metric's name by task.
    """
    from matplotlib.figure import Figure

    losses = [entry for entry in entries if "loss" in entry]
    evaluations = [entry for entry in entries if "metrics" in entry]
    if not losses:
        return
    figure = Figure(figsize=(4 * len(primaries), 6), layout="constrained")
    axes = figure.subplots(2, len(primaries), squeeze=False)
    for column, (task, primary) in enumerate(primaries.items()):
        above, below = axes[0][column], axes[1][column]
        steps = [entry["step"] for entry in losses]
        for name in losses[0]["loss"][task]:
            above.plot(steps, [entry["loss"][task].get(name) for entry in losses], label=name)
        above.set(title=task, ylabel="training loss" if column == 0 else "")
        above.legend(fontsize="small")
        for subnet in evaluations[0]["metrics"] if evaluations else ():
            points = [(e["step"], e["metrics"][subnet][task][primary]) for e in evaluations]
            below.plot(*zip(*points, strict=True), marker="o", label=subnet)
        below.set(xlabel="step", ylabel=f"{primary} %", xlim=above.get_xlim())
        below.set_ylim(0, max(1.0, 1.1 * below.get_ylim()[1]))
        if evaluations:
            below.legend(fontsize="small")
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=100)
