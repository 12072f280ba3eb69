"""Latency in a search: the table that it is bounded by, and the measurement that keeps the bound."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from nasmvt.cost import Budget, Costs, LatencyTable
from nasmvt.errors import UserError, check_task
from nasmvt.pipeline.latency import Effort, Networks, is_here, measure_table, setting_here, time_archs
from nasmvt.pipeline.layout import SearchFiles
from nasmvt.pipeline.run import Run
from nasmvt.precision import Precision
from nasmvt.search import Candidate, Journal
from nasmvt.search.objective import Objectives
from nasmvt.supernet import Supernet

_log = logging.getLogger(__name__)

TOGETHER = 3
"""Candidates that are timed together, in the order of their ranks."""
MOST = 30
"""Candidates that are timed at most."""
CONFIRMING = Effort(rounds=12)
PROCESSES = 2
"""Processes in which each is timed; the larger figure counts."""


def search_costs(
    run: Run,
    supernet: Supernet,
    wanted: Budget,
    objectives: Objectives,
    *,
    precision: Precision,
    table: Path | None = None,
    threads: int | None = None,
    device: str = "auto",
    out: Path | None = None,
    on_task: Callable[[str, int], None] = lambda task, archs: None,
) -> Costs:
    """Return the costs of a search's archs, with the latencies where it asks for them.

    These are in the table given, else in the one that this search began with, else in the run's own; where there is
    none, it is measured on the device at hand.

    Args:
        run: the run.
        supernet: its supernet, on the device.
        wanted: the bounds.
        objectives: of the search; those that are latencies are looked up.
        precision: in which candidates compute, where a table is measured.
        table: a file of `nasmvt measure-latency`.
        threads: of an operator; None: the table's, or 1.
        device: what the user wants: "auto", or the device that the table must be of.
        out: the folder of the search; None: the run's own.
        on_task: called with a task and the number of its archs before they are timed.

    Raises:
        UserError: if the table is of another space, task, device or number of threads.
    """
    costs = Costs(supernet.space, supernet.tasks, supernet.sharing(wanted.sharing))
    tasks = list(dict.fromkeys([*wanted.latency, *objectives.timed]))
    if not tasks:
        if table is not None or threads is not None:
            raise UserError("--latency and --threads serve --max-latency and --minimize latency:TASK: add one of them")
        return costs
    for task in wanted.latency:  # those of --minimize were checked with the objectives
        check_task("--max-latency", task, costs.tasks)
    kept = (run.search_files if out is None else SearchFiles(out)).latency
    path = table or (kept if kept.is_file() else run.latency_path)
    if table is None and not path.is_file():
        setting = setting_here(device=supernet.device, threads=threads or 1, precision=precision)
        networks = Networks(run.experiment.space, run.tasks, run.path)
        measure_table(networks, tasks, setting, Effort(), on_task).write(path)
    costs.timing = LatencyTable.read(path)
    costs.timing.check(costs.space, costs.tasks, tasks, path)
    kind = torch.device(costs.timing.setting.device).type
    wants = None if device == "auto" or kind == supernet.device.type else supernet.device.type
    costs.timing.check_setting(path, device=wants, threads=threads)
    return costs


@dataclass(frozen=True)
class Confirmation:
    """Keeps bounds on latency by measurement: what the tables promise is checked on the best candidates."""

    networks: Networks
    table: LatencyTable
    limits: Mapping[str, int]
    """Microseconds by task."""
    journal: Journal
    """Where measurements are kept."""

    def __call__(self, ranked: Sequence[Candidate]) -> list[Candidate]:
        """Time candidates in the order of their ranks until one is within the bounds.

        Returns:
            All candidates; those that were measured and break a bound come last.

        Raises:
            UserError: if none of those that are measured is within the bounds.
        """
        if not is_here(self.table.setting):
            _log.warning(
                "the bound is kept by the latency table alone, which was measured on %s: measure the result there",
                self.table.setting.processor,
            )
            return list(ranked)
        kept: list[Candidate] = []
        broken: list[Candidate] = []
        for start in range(0, min(len(ranked), MOST), TOGETHER):
            for candidate in self._timed(ranked[start : min(start + TOGETHER, MOST)]):
                within = all(candidate.timed[task] <= limit for task, limit in self.limits.items())
                (kept if within else broken).append(candidate)
            if kept:
                return [*kept, *ranked[start + TOGETHER :], *broken]
        task, excess = min(
            ((task, one.timed[task] / limit) for one in broken for task, limit in self.limits.items()),
            key=lambda pair: pair[1],
        )
        raise UserError(
            f"none of the {len(broken)} best candidates is within the bounds on latency when it is measured (the "
            f"nearest takes {100 * excess - 100:.1f}% more for {task}): measure the table anew on a quiet machine, or "
            "raise --max-latency"
        )

    def _timed(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return candidates with their measured latencies."""
        tasks = [task for task in self.table.tasks if candidates and task in candidates[0].latency]
        for task in tasks:
            unknown = [one.arch for one in candidates if self.journal.timed(one.arch, task) is None]
            if not unknown:
                continue
            scale = 1000 * self.table.tasks[task].milliseconds
            runs = [
                time_archs(self.networks, task, unknown, self.table.setting, CONFIRMING)[1] for _ in range(PROCESSES)
            ]
            for arch in unknown:
                self.journal.add_timing(arch, task, round(scale * max(ratios[arch] for ratios in runs)))
        return [
            replace(one, timed={task: self.journal.timed(one.arch, task) or 0 for task in tasks}) for one in candidates
        ]
