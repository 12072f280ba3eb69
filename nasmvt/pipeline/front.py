"""The candidates of a search that no other is better than, and choosing one of them."""

from pathlib import Path

import torch

from nasmvt.cost import Budget, Costs, LatencyTable
from nasmvt.cost.amounts import Amount
from nasmvt.errors import UserError
from nasmvt.pipeline.archs import ArchFile
from nasmvt.pipeline.layout import SearchFiles
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.supernet import load_supernet
from nasmvt.report.front import plot_front
from nasmvt.search import Candidate, Journal, Objectives
from nasmvt.search.results import best_values, candidates_table, front, write_best, write_table
from nasmvt.search.run import sharing_of


class Front:
    """What a search has found, by score and costs.

    Args:
        run: the run.
        folder: of the search; None: the run's own.

    Raises:
        UserError: if there is no search, or its journal is damaged or of another space.
    """

    def __init__(self, run: Run, folder: Path | None = None) -> None:
        self.run = run
        self.files = run.search_files if folder is None else SearchFiles(folder)
        self._header, self.candidates = Journal(self.files.journal).read(run.experiment.space)
        config = self._header["config"]
        self.objectives = Objectives.of(run.tasks, config["maximize"], config["minimize"])
        best = front(self.candidates, self.objectives)
        self.members = sorted(
            (candidate for candidate, on_it in zip(self.candidates, best, strict=True) if on_it),
            key=lambda candidate: (candidate.parameters.total, -candidate.score),
        )
        """The candidates that no other is better than, the smallest first."""

    def write(self) -> None:
        """Write the front as a table and a plot."""
        write_table(self.files.front, candidates_table(self.members, self.objectives))
        plot_front(self.files.front_plot, self.candidates, self.members)

    def pick(self, limit: Amount) -> Candidate:
        """Make the best candidate within a number of parameters the search's result, which retraining and export take.

        Args:
            limit: the largest total, or a share of the space's largest network.

        Raises:
            UserError: if no candidate is that small.
        """
        supernet = load_supernet(self.run, torch.device("cpu"))
        header = self._header
        costs = Costs(supernet.space, supernet.tasks, supernet.sharing(header["sharing_rule"]))
        latency = header.get("max_latency", {})
        budget = Budget(limit, header["max_macs"], header["sharing_rule"], header["at_least"], latency)
        if latency:
            costs.timing = LatencyTable.read(self.files.latency)
        budget = budget.resolve(costs)
        quick = [one for one in self.candidates if all(time <= latency.get(t, time) for t, time in one.timed.items())]
        within = [one for one in quick if one.parameters.total <= int(budget.parameters or 0)]
        if not within:
            least = min(one.parameters.total for one in self.candidates)
            raise UserError(
                f"no candidate has at most {budget.parameters:,} parameters, the smallest has {least:,}: raise --pick, "
                "or search with that budget"
            )
        best = max(within, key=lambda one: one.score)
        sharing, count = sharing_of(costs, best.arch), len(self.candidates)
        write_best(self.files.best, best_values(best, sharing, budget, header, count, self.complete))
        return best

    @property
    def complete(self) -> bool:
        """Whether the search went to its end."""
        return self.files.best.is_file() and ArchFile.read(self.files.best).complete
