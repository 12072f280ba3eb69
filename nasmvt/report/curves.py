"""Curves of a training, from its metrics.jsonl."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nasmvt.files import atomic


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a metrics.jsonl; lines cut short by a kill, or damaged, are passed over."""
    if not path.is_file():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            entries.append(entry)
    return entries


def plot_curves(folder: Path, primaries: Mapping[str, str]) -> None:
    """Draw losses (above) and main metrics (below) of every task, into `<folder>/curves.png`.

    Args:
        folder: holds metrics.jsonl; without entries nothing is drawn.
        primaries: the main metric's name by task.
    """
    from matplotlib.figure import Figure

    entries = read_metrics(folder / "metrics.jsonl")
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
    with atomic(folder / "curves.png") as path:
        figure.savefig(path, dpi=100)
