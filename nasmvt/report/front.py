"""Plot of what a search has found."""

from collections.abc import Sequence
from pathlib import Path

from nasmvt.files import atomic
from nasmvt.search import Candidate


def plot_front(path: Path, candidates: Sequence[Candidate], front: Sequence[Candidate]) -> None:
    """Draw T-score against parameters of all candidates, colored by generation, and the front as a line, as a PNG file.

    Args:
        path: the file.
        candidates: all of them.
        front: those that no other is better than, the smallest first.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    generations = [one.generation for one in candidates]
    drawn = axes.scatter(*_places(candidates), c=generations, s=14, cmap="viridis")
    axes.plot(*_places(front), "o-", mfc="none", color="crimson", label="front")
    if any(generations):
        figure.colorbar(drawn, label="generation")
    axes.set(xlabel="parameters in all, millions", ylabel="T-score on the search split")
    axes.legend()
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _places(candidates: Sequence[Candidate]) -> tuple[list[float], list[float]]:
    return [one.parameters.total / 1e6 for one in candidates], [one.score for one in candidates]
