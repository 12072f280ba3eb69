"""The search step of the main job."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nasmvt.config import parse
from nasmvt.cost import Budget, Costs, FeasibleSet
from nasmvt.files import held
from nasmvt.pipeline.front import Front
from nasmvt.pipeline.latency import Networks
from nasmvt.pipeline.latency_bound import Confirmation, search_costs
from nasmvt.pipeline.layout import SearchFiles
from nasmvt.pipeline.run import Run, device_of
from nasmvt.pipeline.supernet import load_supernet
from nasmvt.search import (
    Candidate,
    EvaluationSetting,
    Journal,
    Objectives,
    SearchConfig,
    SearchListener,
    make_pool,
    make_searcher,
)
from nasmvt.search import search as run_search
from nasmvt.search.race import BLOCKS
from nasmvt.search.results import ResultFiles
from nasmvt.seeding import derive_seed
from nasmvt.supernet import Supernet
from nasmvt.tasks.precision import check_precision


def with_settings(config: SearchConfig, **changes: object) -> SearchConfig:
    """Return the settings with changes; None means unchanged.

    Raises:
        UserError: if a change breaks a rule.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    return parse(SearchConfig, {**config.model_dump(), **given}, "the options of the search")


@dataclass(frozen=True, kw_only=True)
class Searching:
    """A search that is to be done: of which supernet, by which settings, for what, and what its archs cost.

    Raises:
        UserError: if the supernet's device lacks the precision.
    """

    run: Run
    """Gives data and seed."""
    supernet: Supernet
    """Trained, where candidates are evaluated."""
    config: SearchConfig
    objectives: Objectives
    costs: Costs
    """Of the supernet's archs; candidates are evaluated with their sharing."""
    wanted: Budget
    """Bounds on what an arch costs, as they were given."""
    out: Path | None = None
    """The folder for the results; None: the run's own."""

    def __post_init__(self) -> None:
        check_precision(self.config.precision, self.supernet.device)

    @classmethod
    def of(
        cls,
        run: Run,
        wanted: Budget,
        *,
        device: str = "auto",
        table: Path | None = None,
        threads: int | None = None,
        out: Path | None = None,
        on_task: Callable[[str, int], None] = lambda task, archs: None,
        **settings: Any,
    ) -> "Searching":
        """Prepare a search of a run's supernet; latencies are measured where it asks for them and there are none.

        Args:
            run: the run.
            wanted: bounds on what an arch costs.
            device: where candidates are evaluated; "auto": CUDA if there is any.
            table: a file of `nasmvt measure-latency`; None: the one that this search began with, or the run's.
            threads: of an operator, whose latency counts; None: the table's, or 1.
            out: another folder for the results.
            on_task: called with a task and the number of its archs before they are timed.
            settings: of the search, in place of the experiment's; None means unchanged.

        Raises:
            UserError: if a setting breaks a rule, the supernet is not trained, an objective does not exist, or the
                table is of another space, task, device or number of threads.
        """
        target = device_of(device)
        config = with_settings(run.experiment.search, **settings)
        supernet = load_supernet(run, target)
        objectives = Objectives.of(supernet.tasks, config.maximize, config.minimize)
        costs = search_costs(
            run,
            supernet,
            wanted,
            objectives,
            precision=config.precision,
            table=table,
            threads=threads,
            device=device,
            out=out,
            on_task=on_task,
        )
        return cls(
            run=run, supernet=supernet, config=config, objectives=objectives, costs=costs, wanted=wanted, out=out
        )

    @cached_property
    def budget(self) -> Budget:
        """The bounds as numbers."""
        return self.wanted.resolve(self.costs)

    @cached_property
    def feasible(self) -> FeasibleSet:
        """The archs within the bounds; there are some."""
        return self.budget.feasible(self.costs)

    @property
    def files(self) -> SearchFiles:
        """Where its results are."""
        return self.run.search_files if self.out is None else SearchFiles(self.out)

    def search(
        self,
        *,
        address: str | None = None,
        seed: int | None = None,
        listener: SearchListener | None = None,
        accept_changed_data: bool = False,
        init: Path | None = None,
    ) -> list[Candidate]:
        """Search for the best arch within the bounds; return all candidates, best first.

        An interrupted search continues where it was.

        Args:
            address: a Ray cluster; None: a local Ray.
            seed: of the search; None: the run's.
            listener: notified of every candidate.
            accept_changed_data: continue if the data changed since the run began.
            init: the folder of another search of the same supernet, which this one begins with.

        Raises:
            UserError: if nothing is within the bounds, the data changed, `init` does not fit, the folder holds another
                search, another process searches there, a race has too few images, or no candidate keeps a bound on
                latency when it is measured.
        """
        run, config, costs, files = self.run, self.config, self.costs, self.files
        start = run.experiment.seed if seed is None else seed
        searcher = make_searcher(config, self.feasible, derive_seed(start, "search"))
        journal = Journal(files.journal)
        setting = self._setting(accept_changed_data)
        with held(files.folder), make_pool(config, self.supernet, setting, address) as pool:
            if costs.timing is not None and not files.journal.is_file():
                costs.timing.write(files.latency)
            ranked = run_search(
                self.supernet,
                searcher,
                pool,
                self.objectives,
                costs,
                self.budget,
                journal,
                ResultFiles(files.candidates, files.best),
                listener,
                run.train_identity,
                None if init is None else SearchFiles(init).journal,
                self._confirm(journal),
            )
            if len(self.objectives.names) > 1:
                Front(run, self.out).write()
            return ranked

    def _setting(self, accept_changed_data: bool) -> EvaluationSetting:
        """Return how candidates are evaluated."""
        config, data = self.config, self.run.open_data(accept_changed=accept_changed_data)
        images = {name: item.search_images(config.images) for name, item in data.items()}
        return EvaluationSetting(
            sharing=self.costs.sharing,
            images=images,
            recalibration={name: item.recalibration_images(config.recalibration_images) for name, item in data.items()},
            device=str(self.supernet.device),
            precision=config.precision,
            figures=self.objectives.figures,
            blocks={name: of_task.blocks(BLOCKS) for name, of_task in images.items()} if config.race else {},
        )

    def _confirm(self, journal: Journal) -> Callable[[Sequence[Candidate]], list[Candidate]]:
        """Return what ranks all candidates in the end: by measurement, where a latency is bounded."""
        if self.costs.timing is None:
            return list
        networks = Networks(self.run.experiment.space, self.run.tasks, self.run.path)
        limits = {task: int(limit) for task, limit in self.budget.latency.items()}
        return Confirmation(networks, self.costs.timing, limits, journal)
