"""Search algorithms at equal evaluations against random search, and against random search just below the bound.

The space is vit_mvt_nano with the tasks of the built-in data set, their true numbers of parameters and a budget. What
an arch is worth is either real (`--run`: the T-score with the weights of that run's supernet, evaluated in this process
and kept in a file, so that no arch is evaluated twice) or, by default, SYNTHETIC: half of the variance of each task's
figure is the size of the network, a quarter is options of single slots, the rest pairs of neighbouring slots and noise.
Kendall's tau of score and size is about 0.5 then, as measured on the demo's supernet; it is lower within the budget.
Every seed has another synthetic objective.

    python benchmarks/search_algorithms.py [--seeds 5] [--evaluations 300]
    python benchmarks/search_algorithms.py --run runs/demo --evaluations 30 --population 10

Printed: the best score of each algorithm by seed; its mean difference to both random searches with the p-value of a
paired t-test; evaluations after which it was as good as random search in the end; the share of NSGA-II's hypervolume
(score against parameters) in that of the front of ten times as many random archs (not with `--run`).
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch
from scipy.stats import kendalltau, ttest_rel

from nasmvt.cost import Budget, Costs, FeasibleSet
from nasmvt.pipeline.datasets import infos_of, open_data
from nasmvt.pipeline.experiment import load_experiment
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.supernet import build_supernet, load_supernet
from nasmvt.search import EvaluationSetting, Evaluator, Objective, Objectives, SearchConfig, Searcher, make_searcher
from nasmvt.search.pareto import hypervolume
from nasmvt.space import Arch, SearchSpace

Worth = Callable[[Arch], dict[str, float]]
"""The terms of an arch's score by task."""
SEARCHES = ("evolution", "predictor", "nsga2", "random", "random near the bound")


class Synthetic:
    """An invented objective of a space (see above).

    Args:
        space: the space.
        tasks: names of the tasks; each has a figure of its own.
        size: the number of parameters of an arch.
        drawn: archs by which the parts are scaled to their shares of the variance.
        seed: of the effects.
    """

    SHARES = (0.5, 0.25, 0.15, 0.10)

    def __init__(
        self, space: SearchSpace, tasks: list[str], size: Callable[[Arch], int], drawn: list[Arch], seed: int
    ) -> None:
        self._space, self._tasks, self._size, self._seed = space, tasks, size, seed
        rng = np.random.default_rng(seed)
        most = max(space.slot_sizes) + 1  # one more: absent
        self._single = rng.normal(size=(len(tasks), len(space.slots), most))
        self._pairs = rng.normal(size=(len(tasks), len(space.slots) - 1, most, most))
        parts_NTP = np.array([self._parts(arch) for arch in drawn])
        self._mean_TP, self._scale_TP = parts_NTP.mean(0), np.sqrt(self.SHARES) / parts_NTP.std(0)

    def __call__(self, arch: Arch) -> dict[str, float]:
        values_T = 50 + 3 * ((self._parts(arch) - self._mean_TP) * self._scale_TP).sum(1)
        return dict(zip(self._tasks, values_T.tolist(), strict=True))

    def _parts(self, arch: Arch) -> np.ndarray:
        slots = self._space.encode(arch)
        single_T = self._single[:, np.arange(len(slots)), slots].mean(1)
        pairs_T = self._pairs[:, np.arange(len(slots) - 1), slots[:-1], slots[1:]].mean(1)
        noise_T = np.random.default_rng((self._seed, int(arch.id, 16))).normal(size=len(self._tasks))
        size_T = np.full(len(self._tasks), np.log(self._size(arch)))
        return np.stack((size_T, single_T, pairs_T, noise_T), axis=1)


class Measured:
    """The figures of a supernet's archs on the search split, kept in a file beside the run."""

    def __init__(self, run: Run) -> None:
        supernet, settings = load_supernet(run, torch.device("cpu")), run.experiment.search
        data = run.open_data()
        images = {name: item.search_images(settings.images) for name, item in data.items()}
        plain = {name: item.recalibration_images(settings.recalibration_images) for name, item in data.items()}
        self._objective = Objective.of(supernet.tasks)
        figures = Objectives(self._objective).figures
        sharing = supernet.sharing()
        setting = EvaluationSetting(sharing=sharing, images=images, recalibration=plain, figures=figures)
        self._evaluate = Evaluator(supernet, setting)
        self._path = run.path.with_name(f"{run.path.name}-archs.jsonl")
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self._known: dict[str, dict[str, float]] = dict(map(json.loads, lines))

    def __call__(self, arch: Arch) -> dict[str, float]:
        if arch.id not in self._known:
            primaries, weights = self._objective.primaries, self._objective.weights
            self._known[arch.id] = {
                task: weights[task] * self._evaluate(arch, task)[name] for task, name in primaries.items()
            }
            with self._path.open("a") as file:
                file.write(json.dumps([arch.id, self._known[arch.id]]) + "\n")
        return self._known[arch.id]


def play(searcher: Searcher, worth: Worth, size: Callable[[Arch], int]) -> list[tuple[float, int]]:
    """Run a search; return score and size of every arch in the order of evaluation."""
    found = []
    while archs := searcher.ask(1):
        (arch,) = archs
        terms = worth(arch)
        found.append((sum(terms.values()), size(arch)))
        values = [found[-1][0], *(-float(size(arch)) for _ in searcher.config.minimize)]
        searcher.tell([(arch, values)], {arch: tuple(terms.values())})
    return found


def make(name: str, feasible: FeasibleSet, near: FeasibleSet, given: argparse.Namespace, seed: int) -> Searcher:
    """Return a search of as many evaluations as all others."""
    half = given.population // 2
    config = SearchConfig(
        algorithm=name.split()[0],
        minimize=("parameters",) if name == "nsga2" else (),
        population=given.population,
        parents=max(given.population // 5, 2),
        mutants=given.population - half,
        crossovers=half,
        generations=given.evaluations // given.population,
    )
    return make_searcher(config, near if name.endswith("bound") else feasible, seed)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--run", type=Path, help="run whose supernet says what an arch is worth")
    arguments.add_argument("--budget", type=int, default=1_000_000)
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--evaluations", type=int, default=300)
    arguments.add_argument("--population", type=int, default=50)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    if given.run is not None:
        run = Run.open(given.run)
        supernet, measured = load_supernet(run, torch.device("cpu")), Measured(run)
    else:
        experiment = load_experiment()
        supernet, measured = build_supernet(experiment, infos_of(open_data(experiment))), None
    costs = Costs(supernet.space, supernet.tasks, supernet.sharing())
    feasible = Budget(given.budget).feasible(costs)
    near = FeasibleSet(feasible.tables, feasible.bounds_V.tolist(), [int(0.95 * given.budget)])
    everything = Budget().feasible(costs)
    least, most = (costs.parameters(arch).total for arch in (supernet.space.smallest, supernet.space.largest))

    def size(arch: Arch) -> int:
        return int(costs.totals.of(arch)[0])

    scores: dict[str, list[float]] = {name: [] for name in SEARCHES}
    needed: dict[str, list[int]] = {name: [] for name in SEARCHES}
    shares, taus = [], []
    for seed in range(given.seeds):
        drawn = everything.sample(10 * given.evaluations, np.random.default_rng(seed)) if measured is None else []
        worth = measured or Synthetic(supernet.space, list(supernet.tasks), size, drawn[:500], seed)
        found = {name: play(make(name, feasible, near, given, seed), worth, size) for name in SEARCHES}
        for name, pairs in found.items():
            best_N = np.maximum.accumulate([score for score, _ in pairs])
            scores[name].append(float(best_N[-1]))
            goal = max(score for score, _ in found["random"])
            needed[name].append(int(np.argmax(best_N >= goal)) + 1 if best_N[-1] >= goal else given.evaluations + 1)
        taus.append(kendalltau(*zip(*found["random"], strict=True)).statistic)
        if measured is None:

            def volume(pairs: list[tuple[float, int]]) -> float:
                points_N2 = np.array(pairs, dtype=float)
                scaled_N2 = np.stack((points_N2[:, 0] / 300, (most - points_N2[:, 1]) / (most - least)), axis=1)
                return hypervolume(scaled_N2)

            front = make("nsga2", everything, near, given, seed)
            shares.append(
                volume(play(front, worth, size)) / volume([(sum(worth(arch).values()), size(arch)) for arch in drawn])
            )
        print(f"seed {seed}:", ", ".join(f"{name} {values[-1]:.2f}" for name, values in scores.items()), flush=True)
    kind = "synthetic" if measured is None else f"measured with {given.run}"
    print(f"\n{kind}, {given.evaluations} evaluations, {given.seeds} seeds, at most {given.budget:,} parameters")
    print(f"Kendall's tau of score and parameters among the archs of random search: {fmean(taus):.2f}")
    for name in SEARCHES:
        line = f"{name}: mean best {fmean(scores[name]):.2f}"
        for rival in SEARCHES[3:]:
            if name not in SEARCHES[3:]:
                test = ttest_rel(scores[name], scores[rival])
                line += f"; to {rival} {fmean(scores[name]) - fmean(scores[rival]):+.2f} (p {test.pvalue:.3f})"
        print(f"{line}; as good as random after {median(needed[name]):g} evaluations (by seed {needed[name]})")
    if shares:
        print(
            f"hypervolume of nsga2 over that of {10 * given.evaluations} random archs: {np.round(shares, 3).tolist()}"
        )


if __name__ == "__main__":
    main()
