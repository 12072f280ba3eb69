"""The answers as pictures."""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nasmvt.files import atomic

from .tables import estimate

Answer = Mapping[str, Any]


def draw(name: str, answers: Answer, folder: Path) -> None:
    """Write a question's picture as PNG, if it has one."""
    if name not in PAINTERS:
        return
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    PAINTERS[name](figure, answers[name])
    with atomic(folder / f"{name}.png") as temporary:
        figure.savefig(temporary, dpi=80)


def _ceiling(figure: Figure, answer: Answer) -> None:
    left, right = figure.subplots(1, 2)
    archs = answer["archs"]
    scores = [[result["T-score"] for result in arch["results"]] for arch in archs]
    first, second = zip(*(pair[:2] for pair in scores), strict=True)
    left.scatter(first, second, s=18)
    tau = estimate(answer["between_seeds"]["T-score"])
    left.set(xlabel="T-score, seed 1", ylabel="T-score, seed 2", title=f"halves of the seeds: tau {tau}")
    for pair, arch in zip(scores, archs, strict=True):
        right.plot([arch["parameters"] / 1e6] * len(pair), pair, ".-", color="C0", linewidth=0.8)
    right.set(xlabel="million parameters", ylabel="T-score", xscale="log", title="size and result")


def _ranking(figure: Figure, answer: Answer) -> None:
    axis = figure.subplots()
    _intervals(axis, {title: found["tau"]["T-score"] for title, found in answer["supernets"].items()})
    if (tau := answer["between_seeds"]["T-score"]["value"]) is not None:
        axis.axvline(tau, color="C1", label="halves of the seeds")
    axis.set(xlabel="tau of inherited score and result")
    axis.legend(fontsize="small")


def _inheritance(figure: Figure, answer: Answer) -> None:
    axis = figure.subplots()
    curves = answer["by_steps"]
    for start in ("scratch", "supernet"):
        axis.plot([*map(int, curves)], [names["T-score"][start] for names in curves.values()], "o-", label=start)
    axis.set(xlabel="steps of the training", ylabel="T-score on val")
    axis.legend()


def _search(figure: Figure, answer: Answer) -> None:
    left, right = figure.subplots(1, 2)
    algorithms = answer["algorithms"]
    for title, found in algorithms.items():
        shortest = min(map(len, found["curves"]))
        columns = zip(*(curve[:shortest] for curve in found["curves"]), strict=True)
        left.plot(range(1, shortest + 1), [*map(fmean, columns)], label=title)
    left.set(xlabel="evaluations", ylabel="best inherited T-score, mean")
    left.legend(fontsize="small")
    _intervals(right, {title: found["default_minus_it"] for title, found in algorithms.items()})
    right.set(xlabel="default minus it, best inherited T-score")


def _intervals(axis: Axes, estimates: Mapping[str, Any]) -> None:
    for place, found in enumerate(estimates.values()):
        axis.plot([found["value"]], [place], "o", color="C0")
        if found["low"] is not None:
            axis.plot([found["low"], found["high"]], [place, place], color="C0")
    axis.set_yticks(range(len(estimates)), labels=list(estimates))
    axis.invert_yaxis()
    axis.axvline(0, color="grey", linewidth=0.8)


PAINTERS = {
    "ceiling": _ceiling,
    "ranking": _ranking,
    "ranking_at_equal_size": _ranking,
    "inheritance": _inheritance,
    "search": _search,
    "longer_search": _search,
}
"""By question."""
