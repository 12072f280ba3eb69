"""Stand-ins for networks: sizes and scores as plain functions of an arch."""

import os
import time
from itertools import product
from pathlib import Path

import numpy as np

from nasmvt.config import parse
from nasmvt.cost import FeasibleSet
from nasmvt.cost.tables import ItemTables
from nasmvt.search import Journal, SearchConfig, Searcher
from nasmvt.search.results import ResultFiles
from nasmvt.space import Arch, SearchSpace

LARGE = {"depth": [4, 6, 8], "width": [16, 24, 32, 40], "heads": {"options": [1, 2, 3, 4], "per": "depth"}}
SMALL = {
    "depth": [1, 2],
    "width": [1, 2],
    "heads": {"options": [1, 2], "per": "depth"},
}  # 2 * (2 + 4) = 12 archs


def make_space(choices: dict | None = None) -> SearchSpace:
    return parse(SearchSpace, {"name": "toy", "family": "none", "choices": choices or LARGE}, "toy")


def search_files(folder: Path) -> tuple[Journal, ResultFiles]:
    return Journal(folder / "journal.jsonl"), ResultFiles(folder / "candidates.csv", folder / "best.yaml")


def size(arch: Arch) -> int:
    """Grows with every option, as parameters do."""
    return arch["width"] * sum(arch["heads"])


def fitness(arch: Arch) -> float:
    """Wants wide archs whose heads alternate: good archs are rare, and near to other good ones."""
    return arch["width"] + sum((4 if i % 2 else 1) == h for i, h in enumerate(arch["heads"])) * 10 / len(arch["heads"])


def within(budget: float, space: SearchSpace) -> FeasibleSet:
    """The archs of at most this size, by tables as they are derived for networks: one item per block."""
    items = ItemTables(space, lambda arch: {f"block {i}": arch["width"] * h for i, h in enumerate(arch["heads"])})
    return FeasibleSet(items.add_up([dict.fromkeys(items.slots, 1)]), [int(budget)])


def every_arch(space: SearchSpace) -> list[Arch]:
    """Every arch of a small space once."""
    sizes = [range(len(space.choices[name].options)) for name, _ in space.slots]
    return list(dict.fromkeys(space.decode(np.array(indices)) for indices in product(*sizes)))


def play(searcher: Searcher, ask: int = 3, reverse: bool = False, score=fitness) -> list[Arch]:
    """Run a search to its end and return what it asked for, in order."""
    asked: list[Arch] = []
    for _ in range(100_000):
        archs = searcher.ask(ask)
        if not archs:
            assert searcher.done
            return asked
        asked += archs
        searcher.tell([(arch, [score(arch)]) for arch in (reversed(archs) if reverse else archs)])
    raise AssertionError("the search does not end")


def small_config(**changes) -> SearchConfig:
    values = {"population": 8, "parents": 3, "generations": 4, "mutants": 4, "crossovers": 4}
    return SearchConfig(**{**values, **changes})


class Toy:
    """An evaluator; picklable, and so its own factory."""

    def __call__(self) -> "Toy":
        return self.evaluate

    def evaluate(self, arch: Arch, task: str, rung: int | None = None) -> dict[str, float]:
        return {"figure": len(task) + sum(map(len, map(str, arch.values()))), "other": 1.0}


class Fragile(Toy):
    """Kills its process the first `deaths` times, by marks in a folder, for one task only."""

    def __init__(self, folder: Path, deaths: int) -> None:
        self.folder = folder
        self.deaths = deaths

    def evaluate(self, arch: Arch, task: str, rung: int | None = None) -> dict[str, float]:
        marks = len(list(self.folder.iterdir()))
        if task == "det" and marks < self.deaths:
            (self.folder / str(marks)).touch()
            os._exit(1)
        return super().evaluate(arch, task)


class Slow(Toy):
    """Takes its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def evaluate(self, arch: Arch, task: str, rung: int | None = None) -> dict[str, float]:
        time.sleep(self.seconds)
        return super().evaluate(arch, task)


class SlowToBuild(Toy):
    """Takes its time to be built."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self) -> "Toy":
        time.sleep(self.seconds)
        return super().__call__()


class Hanging(Toy):
    """Hangs in the first evaluation of all, which leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def evaluate(self, arch: Arch, task: str, rung: int | None = None) -> dict[str, float]:
        try:
            self.mark.touch(exist_ok=False)
        except FileExistsError:
            return super().evaluate(arch, task)
        time.sleep(1000)
        raise TimeoutError


class Failing(Toy):
    """Raises an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def evaluate(self, arch: Arch, task: str, rung: int | None = None) -> dict[str, float]:
        raise self.error


class Broken:
    """Can't build its evaluator."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self) -> Toy:
        raise self.error
