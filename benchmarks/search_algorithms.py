"""Search algorithms at equal evaluations against random search, and against random search just below the bound.

The space is vit_mvt_nano with the tasks of the built-in data set, their true numbers of parameters and a budget. What
an arch is worth is

- by default SYNTHETIC: half of the variance of each task's figure is the size of the network, a quarter is options of
  single slots, the rest pairs of neighbouring slots and noise. Kendall's tau of score and size is about 0.5 then, as
  measured on the demo's supernet; it is lower within the budget. Every seed has another such objective;
- with `--run` real: the T-score with the weights of that run's supernet, evaluated in this process and kept in a file,
  so that no arch is evaluated twice;
- with `--run` and `--fitted` SYNTHETIC, but near to that supernet: what a regression says of each task's figure that
  was learned from the archs in that file, plus noise as large as what it leaves unexplained.

    python benchmarks/search_algorithms.py [--seeds 5] [--evaluations 300]
    python benchmarks/search_algorithms.py --run runs/demo --evaluations 30 --population 10
    python benchmarks/search_algorithms.py --reach evolution --run runs/demo --images 40 --recalibration 16 --pool 450
    python benchmarks/search_algorithms.py --reach evolution --seeds 40 --set population=20 --set parents=4
    python benchmarks/search_algorithms.py --front --run runs/demo --images 40 --recalibration 16 --fitted

Printed: the best score of each algorithm by seed; its mean difference to both random searches with the p-value of a
paired t-test; evaluations after which it was as good as random search in the end. With `--reach ALGORITHM` the last
alone, of searches that stop there; `--pool 450` lets random search draw from so many archs, the same for every seed, so
that fewer need be evaluated. With `--front` the share of NSGA-II's hypervolume (score against parameters) in that of
ten times as many random archs, both without a bound, and of random search's in it.
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch
import yaml
from scipy.stats import kendalltau, ttest_rel

from nasmvt.cost import Budget, Costs, FeasibleSet
from nasmvt.pipeline.datasets import infos_of, open_data
from nasmvt.pipeline.experiment import load_experiment
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.supernet import build_supernet, load_supernet
from nasmvt.search import EvaluationSetting, Evaluator, Objective, Objectives, SearchConfig, Searcher, make_searcher
from nasmvt.search.packing import fingerprint
from nasmvt.search.pareto import hypervolume
from nasmvt.search.predictor import encode
from nasmvt.space import Arch, SearchSpace
from nasmvt.supernet import Supernet

Worth = Callable[[Arch], dict[str, float]]
"""The terms of an arch's score by task."""
Pair = tuple[float, int]
"""Score and size of an arch."""
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

    def __init__(self, run: Run, supernet: Supernet, given: argparse.Namespace) -> None:
        data, settings = run.open_data(), run.experiment.search
        count = given.images or settings.images
        again = settings.recalibration_images if given.recalibration is None else given.recalibration
        images = {name: item.search_images(count) for name, item in data.items()}
        plain = {name: item.recalibration_images(again) for name, item in data.items()}
        self._objective = Objective.of(supernet.tasks)
        figures = Objectives(self._objective).figures
        sharing = supernet.sharing()
        setting = EvaluationSetting(sharing=sharing, images=images, recalibration=plain, figures=figures)
        self._evaluate = Evaluator(supernet, setting)
        made = f"{count}-{again}-{fingerprint(supernet.state_dict())}"
        self._path = run.path.with_name(f"{run.path.name}-archs-{made}.jsonl")
        lines = map(json.loads, self._path.read_text().splitlines() if self._path.exists() else [])
        self.known: dict[Arch, dict[str, float]] = {supernet.space.arch(values): terms for values, terms in lines}

    def __call__(self, arch: Arch) -> dict[str, float]:
        if arch not in self.known:
            primaries, weights = self._objective.primaries, self._objective.weights
            self.known[arch] = {
                task: weights[task] * self._evaluate(arch, task)[name] for task, name in primaries.items()
            }
            with self._path.open("a") as file:
                file.write(json.dumps([arch.to_dict(), self.known[arch]]) + "\n")
        return self.known[arch]


class Fitted:
    """What a regression of measured figures on the options of archs says, and noise by the arch and a seed."""

    def __init__(self, space: SearchSpace, known: dict[Arch, dict[str, float]]) -> None:
        from sklearn.base import clone
        from sklearn.ensemble import GradientBoostingRegressor
        from sklearn.model_selection import cross_val_predict

        self._space = space
        told_NF = encode(space, list(known))
        terms_NT = np.array([list(terms.values()) for terms in known.values()])
        self._tasks = list(next(iter(known.values())))
        fresh = GradientBoostingRegressor(n_estimators=200, max_depth=4, subsample=0.7, random_state=0)
        self._models = [clone(fresh).fit(told_NF, terms_N) for terms_N in terms_NT.T]
        left_TN = np.array([terms_N - cross_val_predict(fresh, told_NF, terms_N, cv=5) for terms_N in terms_NT.T])
        self._noise_T = left_TN.std(1)
        self._told: dict[Arch, np.ndarray] = {}
        self.explained = 1 - left_TN.sum(0).var() / terms_NT.sum(1).var()
        """Part of the variance of the T-score, of archs that it was not learned from."""

    def at(self, seed: int) -> Worth:
        """Return what archs are worth with the noise of a seed."""

        def worth(arch: Arch) -> dict[str, float]:
            if arch not in self._told:
                asked_1F = encode(self._space, [arch])
                self._told[arch] = np.array([model.predict(asked_1F)[0] for model in self._models])
            drawn_T = np.random.default_rng((seed, int(arch.id, 16))).normal(size=len(self._tasks))
            values_T = self._told[arch] + drawn_T * self._noise_T
            return dict(zip(self._tasks, values_T.tolist(), strict=True))

        return worth


@dataclass(frozen=True)
class World:
    """A space within a bound, and what its archs are worth by seed."""

    costs: Costs
    given: argparse.Namespace
    worth: Callable[[int], Worth]

    @property
    def feasible(self) -> FeasibleSet:
        return Budget(self.given.budget).feasible(self.costs)

    @property
    def near(self) -> FeasibleSet:
        return self.feasible.near_bound()

    @property
    def everything(self) -> FeasibleSet:
        return Budget().feasible(self.costs)

    def size(self, arch: Arch) -> int:
        return int(self.costs.totals.of(arch)[0])

    def play(
        self, name: str, within: FeasibleSet, seed: int, goal: float = math.inf, most: int | None = None
    ) -> list[Pair]:
        """Run a search, until it reaches a score; return score and size of each arch in the order of evaluation."""
        most = most or self.given.evaluations
        searcher, worth = make(name, within, self.given, seed), self.worth(seed)
        found: list[Pair] = []
        while len(found) < most and (archs := searcher.ask(1)):
            (arch,) = archs
            terms, size = worth(arch), self.size(arch)
            found.append((sum(terms.values()), size))
            if found[-1][0] >= goal:
                break
            values = [found[-1][0], *(-float(size) for _ in searcher.config.minimize)]
            searcher.tell([(arch, values)], {arch: tuple(terms.values())})
        return found


def make(name: str, feasible: FeasibleSet, given: argparse.Namespace, seed: int) -> Searcher:
    """Return a search of as many evaluations as all others, at least."""
    changes = {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in given.set)}
    population = changes.get("population", given.population)
    values = {
        "population": population,
        "parents": max(population // 5, 2),
        "mutants": population - population // 2,
        "crossovers": population // 2,
        "generations": math.ceil(given.evaluations / population),
    }
    minimize = ("parameters",) if name == "nsga2" else ()
    config = SearchConfig(algorithm=name.split()[0], minimize=minimize, **{**values, **changes})
    return make_searcher(config, feasible, seed)


def compare(world: World) -> None:
    """Print what all algorithms find."""
    given, feasible, near = world.given, world.feasible, world.near
    scores: dict[str, list[float]] = {name: [] for name in SEARCHES}
    needed: dict[str, list[int]] = {name: [] for name in SEARCHES}
    taus = []
    for seed in range(given.seeds):
        found = {name: world.play(name, near if name.endswith("bound") else feasible, seed) for name in SEARCHES}
        goal = max(score for score, _ in found["random"])
        for name, pairs in found.items():
            best_N = np.maximum.accumulate([score for score, _ in pairs])
            scores[name].append(float(best_N[-1]))
            needed[name].append(int(np.argmax(best_N >= goal)) + 1 if best_N[-1] >= goal else given.evaluations + 1)
        taus.append(kendalltau(*zip(*found["random"], strict=True)).statistic)
        print(f"seed {seed}:", ", ".join(f"{name} {values[-1]:.2f}" for name, values in scores.items()), flush=True)
    print(f"Kendall's tau of score and parameters among the archs of random search: {fmean(taus):.2f}")
    for name in SEARCHES:
        line = f"{name}: mean best {fmean(scores[name]):.2f}"
        for rival in SEARCHES[3:]:
            if name not in SEARCHES[3:]:
                test = ttest_rel(scores[name], scores[rival])
                line += f"; to {rival} {fmean(scores[name]) - fmean(scores[rival]):+.2f} (p {test.pvalue:.3f})"
        print(f"{line}; as good as random after {median(needed[name]):g} evaluations (by seed {needed[name]})")


def reach(world: World) -> None:
    """Print after how many evaluations an algorithm is as good as random search in the end."""
    given, feasible, needed = world.given, world.feasible, []
    pool = list(dict.fromkeys(feasible.sample(given.pool, np.random.default_rng(0)))) if given.pool else []
    for seed in range(given.seeds):
        if pool:
            worth, order = world.worth(seed), np.random.default_rng(seed).permutation(len(pool))
            goal = max(sum(worth(pool[place]).values()) for place in order[: given.evaluations])
        else:
            goal = max(score for score, _ in world.play("random", feasible, seed))
        found = world.play(given.reach, feasible, seed, goal, given.most)
        best = max(score for score, _ in found)
        needed.append(len(found) if best >= goal else len(found) + 1)
        if given.seeds <= 10:
            said = f"after {len(found)}" if best >= goal else f"not after {len(found)}: {best:.2f}"
            print(f"seed {seed}: random {goal:.2f}, {given.reach} {said}", flush=True)
    within = np.mean(np.array(needed) <= min(100, given.most or 100))  # one more than the most: never
    print(
        f"{given.reach} {' '.join(given.set)}: as good as random after a median of {median(needed):g} evaluations "
        f"(quartiles {np.percentile(needed, 25):g} to {np.percentile(needed, 75):g}, more than the most: never); "
        f"within 100 in {within:.0%} of {given.seeds} seeds"
    )


def front(world: World) -> None:
    """Print the shares of hypervolumes."""
    given, everything = world.given, world.everything
    least, most = (
        world.costs.parameters(arch).total for arch in (world.costs.space.smallest, world.costs.space.largest)
    )

    def volume(pairs: list[Pair]) -> float:
        points_N2 = np.array(pairs, dtype=float)
        scaled_N2 = np.stack((points_N2[:, 0] / 300, (most - points_N2[:, 1]) / (most - least)), axis=1)
        return hypervolume(scaled_N2)

    shares: dict[str, list[float]] = {"nsga2": [], "random": []}
    for seed in range(given.seeds):
        worth = world.worth(seed)
        drawn = everything.sample(10 * given.evaluations, np.random.default_rng((seed, 1)))
        whole = volume([(sum(worth(arch).values()), world.size(arch)) for arch in drawn])
        for name, values in shares.items():
            values.append(volume(world.play(name, everything, seed)) / whole)
        print(f"seed {seed}:", ", ".join(f"{name} {values[-1]:.3f}" for name, values in shares.items()), flush=True)
    for name, values in shares.items():
        print(
            f"{name}: {fmean(values):.3f} ({min(values):.3f} to {max(values):.3f}) of {10 * given.evaluations} archs'"
        )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--run", type=Path, help="run whose supernet says what an arch is worth")
    arguments.add_argument("--images", type=int, help="of the search split, with --run")
    arguments.add_argument("--recalibration", type=int, help="images for BatchNorm statistics, with --run")
    arguments.add_argument("--fitted", action="store_true", help="a regression of what --run has evaluated")
    arguments.add_argument("--budget", type=int, default=1_000_000)
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--evaluations", type=int, default=300)
    arguments.add_argument("--population", type=int, default=50)
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the searches")
    arguments.add_argument("--reach", choices=SEARCHES[:3])
    arguments.add_argument("--most", type=int, help="evaluations after which a search is given up, with --reach")
    arguments.add_argument("--pool", type=int, help="archs that random search draws from, with --reach")
    arguments.add_argument("--front", action="store_true")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    if given.run is None:
        experiment = load_experiment()
        supernet = build_supernet(experiment, infos_of(open_data(experiment)))
    else:
        supernet = load_supernet(Run.open(given.run), torch.device("cpu"))
    costs = Costs(supernet.space, supernet.tasks, supernet.sharing())
    measured = None if given.run is None else Measured(Run.open(given.run), supernet, given)
    fitted = Fitted(supernet.space, measured.known) if measured is not None and given.fitted else None

    def size(arch: Arch) -> int:
        return int(costs.totals.of(arch)[0])

    @cache
    def worth(seed: int) -> Worth:
        if measured is not None:
            return measured if fitted is None else fitted.at(seed)
        drawn = Budget().feasible(costs).sample(500, np.random.default_rng(seed))
        return Synthetic(supernet.space, list(supernet.tasks), size, drawn, seed)

    kind = "synthetic" if measured is None else f"measured with {given.run}"
    if measured is not None and fitted is not None:
        kind = f"fitted to {len(measured.known)} archs of {given.run}, {fitted.explained:.0%} of the variance explained"
    print(
        f"{kind}, {given.evaluations} evaluations, {given.seeds} seeds, at most {given.budget:,} parameters", flush=True
    )
    world = World(costs, given, worth)
    if given.front:
        front(world)
    elif given.reach:
        reach(world)
    else:
        compare(world)


if __name__ == "__main__":
    main()
