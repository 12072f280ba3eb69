"""The search itself: keeps the pool busy, passes scores to the searcher, writes the results."""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from nasmvt.cost import Budget, Costs
from nasmvt.cost.parameters import tensor_sizes
from nasmvt.search.candidate import Candidate
from nasmvt.search.journal import Journal
from nasmvt.search.objective import Objectives
from nasmvt.search.packing import fingerprint
from nasmvt.search.pareto import hypervolume
from nasmvt.search.pool import Pool
from nasmvt.search.race import Race, blocks_of
from nasmvt.search.results import ResultFiles, best_values, candidates_table
from nasmvt.search.searcher import Searcher
from nasmvt.space import Arch, Sharing
from nasmvt.space.sharing import layer_of
from nasmvt.supernet import Supernet


class SearchListener(Protocol):
    """Is notified of the progress of a search."""

    def on_candidate(self, done: int, total: int | None, candidate: Candidate, best: Candidate) -> None:
        """A candidate is complete; `done` of at most `total`, with the best so far."""
        ...


def search(
    supernet: Supernet,
    searcher: Searcher,
    pool: Pool,
    objectives: Objectives,
    costs: Costs,
    budget: Budget,
    journal: Journal,
    files: ResultFiles,
    listener: SearchListener | None = None,
    data: Mapping[str, Any] | None = None,
    init: Path | None = None,
    confirm: Callable[[Sequence[Candidate]], list[Candidate]] = list,
) -> list[Candidate]:
    """Evaluate the archs that the searcher proposes and return all candidates, best first.

    Evaluations that the journal holds are not repeated. The results are written at the end, and also when the search
    is interrupted or fails after the first candidate; those of the best candidate then say `complete: false`.

    Args:
        supernet: the trained weights; the journal is bound to them.
        searcher: proposes archs within `budget`.
        pool: evaluates with the same weights; the caller closes it.
        objectives: give the score, what the searcher is told, and the tasks that are evaluated.
        costs: counts under the sharing of the supernet.
        budget: the bounds, as numbers, written down with the result.
        journal: where evaluations are kept.
        files: where the results are written.
        listener: notified of every completed candidate.
        data: identifies, as plain values, the data of the evaluations; the journal is bound to them.
        init: the journal of another search of the same space and weights, which this one begins with.
        confirm: given all candidates, best first, returns them as they are ranked in the end.

    Raises:
        UserError: if the journal belongs to another search, or an evaluation fails, or `init` does not fit.
    """
    header = {
        "space": searcher.space.name,
        "choices": {name: choice.model_dump(mode="json") for name, choice in searcher.space.choices.items()},
        "seed": searcher.seed,
        "budget": budget.parameters,
        "at_least": budget.at_least,
        "max_macs": dict(budget.macs),
        "sharing_rule": budget.sharing,
        "config": searcher.config.identity(),
        "weights": fingerprint(supernet.state_dict()),
        "score_weights": dict(objectives.score.weights),
        "score_metrics": dict(objectives.score.primaries),
        **({"data": data} if data else {}),
        **({"max_latency": dict(budget.latency)} if budget.latency else {}),
        **({"latency": costs.timing.digest} if costs.timing is not None else {}),
    }
    if init is not None:
        searcher.know({}, {})  # refuses at once where it makes nothing of it
    journal.begin(header, init)
    race = Race(objectives.score, searcher.kept or 0) if searcher.config.race else None
    driver = _Driver(searcher, pool, objectives, costs, budget, journal, listener, race)
    if init is not None:
        driver.begin_with(journal.taken(searcher.space))
    ranked: list[Candidate] = []
    try:
        driver.run()
        ranked = confirm(driver.ranked())
    finally:
        complete = bool(ranked)
        ranked = ranked or driver.ranked()
        if ranked:
            sharing = sharing_of(costs, ranked[0].arch)
            best = best_values(ranked[0], sharing, budget, header, len(ranked), complete)
            files.write(candidates_table(ranked, objectives), best)
    return ranked


class _Driver:
    """Passes units from the searcher to the pool and metrics back."""

    def __init__(
        self,
        searcher: Searcher,
        pool: Pool,
        objectives: Objectives,
        costs: Costs,
        budget: Budget,
        journal: Journal,
        listener: SearchListener | None,
        race: Race | None,
    ) -> None:
        self._race = race
        self._dropped = 0
        self._searcher = searcher
        self._pool = pool
        self._objectives = objectives
        self._score = objectives.score
        self._costs = costs
        self._counted = tuple(dict.fromkeys([*budget.macs, *objectives.counted]))
        self._timed = tuple(dict.fromkeys([*budget.latency, *objectives.timed]))
        self._journal = journal
        self._listener = listener
        self._waiting: deque[tuple[Arch, str, int | None]] = deque()
        self._partial: dict[Arch, dict[str, dict[str, float]]] = {}
        self._candidates: dict[Arch, Candidate] = {}
        self._generation = 0

    def begin_with(self, taken: Mapping[Arch, Mapping[str, Mapping[str, float]]]) -> None:
        """Tell the searcher what another search found."""
        whole = {arch: metrics for arch, metrics in taken.items() if metrics.keys() >= self._score.weights.keys()}
        found = [self._candidate(arch, metrics, -1) for arch, metrics in whole.items()]
        self._searcher.know(
            {one.arch: self._objectives.values(one) for one in found},
            {one.arch: self._objectives.terms(one) for one in found},
        )

    def run(self) -> None:
        while True:
            self._fill()
            if self._pool.pending:
                evaluation = self._pool.result()
                self._journal.add_evaluation(evaluation)
                self._learn(evaluation.arch, evaluation.task, evaluation.rung, evaluation.metrics)
            elif self._race is not None and self._race.live:
                self._end_rung(self._race)
            elif self._searcher.done:
                self._end_generation()
                return

    def _fill(self) -> None:
        """Submit units until the pool is full or the searcher waits for scores."""
        while self._pool.pending < self._pool.capacity:
            if self._waiting:
                self._pool.submit(*self._waiting.popleft())
                continue
            archs = self._searcher.ask(1)
            if not archs:
                return
            for arch in archs:
                self._open(arch)

    def _open(self, arch: Arch) -> None:
        """Let an arch race, if there is a race, or have it evaluated."""
        self._partial[arch] = {}
        if self._race is not None:
            self._race.enter(arch)
        self._inquire(arch, None if self._race is None else self._race.rung)

    def _inquire(self, arch: Arch, rung: int | None) -> None:
        """Take what the journal knows about an arch and queue the rest."""
        known = {task: self._journal.find(arch, task, rung) for task in self._score.weights}
        self._waiting.extend((arch, task, rung) for task, metrics in known.items() if metrics is None)
        for task, metrics in known.items():
            if metrics is not None:
                self._learn(arch, task, rung, metrics)

    def _end_rung(self, race: Race) -> None:
        """Drop who is hopeless; have the others compared on more images, and at last evaluated on all."""
        blocks = blocks_of(race.rung)
        for arch in race.end_rung():
            self._dropped += 1
            del self._partial[arch]
            self._journal.add_dropped(arch, self._searcher.generation(arch), blocks, race.partial(arch))
            self._searcher.tell([(arch, [math.nan])])
        rung = None if race.over else race.rung
        for arch in race.finish() if race.over else race.live:
            self._inquire(arch, rung)

    def _learn(self, arch: Arch, task: str, rung: int | None, metrics: Mapping[str, float]) -> None:
        """Record the metrics of one task; the last one on all images completes the candidate."""
        if rung is not None and self._race is not None:
            self._race.learn(arch, task, list(metrics.values()))
            return
        partial = self._partial[arch]
        partial[task] = dict(metrics)
        if len(partial) < len(self._score.weights):
            return
        in_order = {name: self._partial[arch][name] for name in self._score.weights}
        del self._partial[arch]
        candidate = self._candidate(arch, in_order, self._searcher.generation(arch))
        if candidate.generation > self._generation:
            self._end_generation()
            self._generation = candidate.generation
        self._candidates[arch] = candidate
        self._journal.add_candidate(candidate)
        self._searcher.tell([(arch, self._objectives.values(candidate))], {arch: self._objectives.terms(candidate)})
        if self._listener is not None:
            best = self._candidates[self._searcher.best(1)[0][0]]
            self._listener.on_candidate(len(self._candidates) + self._dropped, self._searcher.total, candidate, best)

    def _candidate(self, arch: Arch, metrics: Mapping[str, Mapping[str, float]], generation: int) -> Candidate:
        return Candidate(
            arch=arch,
            parameters=self._costs.parameters(arch),
            macs={task: int(self._costs.macs(task).of(arch)[0]) for task in self._counted},
            latency={task: int(self._costs.latency(task).of(arch)[0]) for task in self._timed},
            metrics=metrics,
            score=self._score(metrics),
            generation=generation,
        )

    def _end_generation(self) -> None:
        """Write down what all generations so far have reached."""
        if self._candidates:
            shares_NM = self._objectives.shares([*self._candidates.values()], self._costs)
            notes = self._searcher.notes(self._generation)
            self._journal.add_generation(self._generation, hypervolume(shares_NM), notes)

    def ranked(self) -> list[Candidate]:
        return [self._candidates[arch] for arch, _ in self._searcher.best() if arch in self._candidates]


def sharing_of(costs: Costs, arch: Arch) -> Sharing:
    """Return the part of the sharing that applies to an arch."""
    names = (name for task in costs.tasks.values() for name in tensor_sizes(costs.space, task, arch))
    return costs.sharing.of_layers(map(layer_of, names))
