"""Progress bars and tables."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from nasmvt.cli.tables import new_table
from nasmvt.cost import LatencyTable
from nasmvt.pipeline.against import SearchesOf
from nasmvt.pipeline.benchmark import Setting, Speed
from nasmvt.pipeline.comparison import Compared
from nasmvt.pipeline.runs import RunState
from nasmvt.search import Candidate

console = Console()


def say(text: str) -> None:
    """Print a line unchanged, without wrapping or colours, so that paths can be copied."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Print nothing inside the block, errors aside."""
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


class TrainingProgress:
    """Shows the progress of a training: a bar with losses, speed and remaining time, and a line per evaluation."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._title = title
        self._task = progress.add_task(title, total=None, losses="", speed="")
        self._first: int | None = None

    def on_step(self, step: int, steps: int, losses: Mapping[str, float], lr: float) -> None:
        """Advance the bar."""
        if self._first is None:
            self._first = step - 1
            self._progress.update(self._task, total=steps, completed=self._first)
            self._progress.reset(self._task, total=steps, completed=self._first)
        text = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        elapsed = self._progress.tasks[self._task].elapsed or 0
        speed = f"{(step - self._first) / elapsed:.2f} steps/s" if elapsed else ""
        self._progress.update(self._task, completed=step, losses=text, speed=speed)

    def on_evaluation(self, step: int, metrics: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
        """Print the metrics of every subnet."""
        for subnet, tasks in metrics.items():
            text = "  ".join(f"{task} {name} {value:.1f}" for task, m in tasks.items() for name, value in m.items())
            say(f"step {step}  {subnet}: {text}")


@contextmanager
def training_progress(title: str, shown: bool = True) -> Iterator[TrainingProgress | None]:
    """Show a progress bar while a training runs; of several processes, one does."""
    if not shown:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TextColumn("{task.fields[losses]}"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield TrainingProgress(progress, title)


def events(listener: TrainingProgress | None) -> dict[str, Callable[..., None]]:
    """Return what a listener does with each event, by name; nothing without one."""
    return {} if listener is None else {"on_step": listener.on_step, "on_evaluation": listener.on_evaluation}


def metrics_table(title: str, metrics: Mapping[str, Mapping[str, float]]) -> Table:
    """Return a table of metrics in percent, one row per task and metric."""
    table = new_table(title, "task", "metric", "%", left=("task", "metric"))
    for task, values in metrics.items():
        for name, value in values.items():
            table.add_row(task, name, f"{value:.2f}")
    return table


def disagreement_table(differences: Mapping[str, float]) -> Table:
    """Return a table of how much files for other runtimes differ from PyTorch, by their names."""
    table = new_table("from PyTorch, of the largest value", "file", "difference", left=("file",))
    for file, difference in differences.items():
        table.add_row(file, f"{difference:.1e}")
    return table


def int8_table(report: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a table of what quantisation costs on val, by task."""
    headers = ("task", "metric", "float", "int8", "kept in float")
    table = new_table("quantised, on val (%)", *headers, left=("task", "metric"), wrap=("kept in float",))
    for task, item in report.items():
        for metric, value in item["float"].items():
            kept = ", ".join(item["kept_in_float"]) or "-"
            table.add_row(task, metric, f"{value:.2f}", f"{item['int8'][metric]:.2f}", kept)
    return table


def speed_table(found: Sequence[tuple[Setting, Speed]]) -> Table:
    """Return a table of what was measured of each setting."""
    headers = ("task", "runtime", "batch", "threads", "images/s", "p50", "p90", "p99", "MiB")
    table = new_table("speed; percentiles in ms per call", *headers, left=("task", "runtime"))
    for setting, speed in found:
        times = (f"{value:.1f}" for value in (speed.images_per_second, speed.p50, speed.p90, speed.p99))
        where = (setting.task, setting.runtime, str(setting.batch), str(setting.threads))
        table.add_row(*where, *times, f"{speed.memory:.0f}")
    return table


def parameters_table(parameters: Mapping[str, object]) -> Table:
    """Return a table of parameter counts with their parts (see `ParameterCount.to_dict`)."""
    table = new_table("parameters, a shared tensor counted once", "part", "parameters", left=("part",))
    for part, count in parameters.items():
        if isinstance(count, Mapping):
            for task, number in count.items():
                table.add_row(
                    f"{task}, {'own part of the backbone' if part == 'specific' else 'neck and head'}",
                    f"{number:,}",
                )
        else:
            table.add_row(part, f"{count:,}", end_section=part == "total")
    return table


class SearchTable:
    """Shows the progress of a search and its best candidates so far."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._found: list[Candidate] = []

    def on_candidate(self, done: int, total: int | None, candidate: Candidate, best: Candidate) -> None:
        """Add a candidate and redraw the table."""
        self._found.append(candidate)
        ranked = sorted(self._found, key=lambda item: -item.score)[:5]
        of = "" if total is None else f" of at most {total}"
        title = f"{done}{of} candidates, generation {candidate.generation}"
        table = new_table(title, "T-score", *_figures(best.metrics), "parameters", "arch", wrap=("arch",))
        for item in ranked:
            table.add_row(
                f"{item.score:.2f}",
                *_figures(item.metrics).values(),
                f"{item.parameters.total:,}",
                str(item.arch),
            )
        self._live.update(table)


@contextmanager
def search_progress() -> Iterator[SearchTable]:
    """Show a live table while a search runs."""
    try:
        with Live(console=console, refresh_per_second=2) as live:
            yield SearchTable(live)
    finally:
        if not console.is_interactive:
            console.line()


def front_table(members: Sequence[Candidate], count: int) -> Table:
    """Return the table of a front, the smallest candidate first.

    Args:
        members: the candidates on the front.
        count: how many candidates there are in all.
    """
    work = [*(f"GMACs {task}" for task in members[0].macs), *(f"ms {task}" for task in members[0].latency)]
    title = f"front of {count} candidates, on the search split"
    headers = ("parameters", *work, "T-score", *_figures(members[0].metrics), "arch")
    table = new_table(title, *headers, wrap=("arch",))
    for one in members:
        gmacs = [f"{number / 1e9:.3f}" for number in one.macs.values()]
        times = [f"{number / 1e3:.2f}" for number in one.latency.values()]
        figures = _figures(one.metrics).values()
        table.add_row(f"{one.parameters.total:,}", *gmacs, *times, f"{one.score:.2f}", *figures, str(one.arch))
    return table


def latency_table(found: LatencyTable) -> Table:
    """Return what a latency table says: the times of the archs that were measured, and how well it tells others."""
    title = f"milliseconds of a call, {found.setting}"
    table = new_table(title, "task", "archs", "fastest", "slowest", "held out", "median error", "rank correlation")
    for name, task in found.tasks.items():
        times = [task.milliseconds * one.ratio for one in (*task.timed, *task.held_out)]
        error = "" if task.error is None else f"{100 * task.error:.1f} %"
        correlation = "" if task.rank_correlation is None else f"{task.rank_correlation:.3f}"
        ends = (f"{min(times):.2f}", f"{max(times):.2f}")
        table.add_row(name, str(len(task.timed)), *ends, str(len(task.held_out)), error, correlation)
    return table


def comparison_table(found: Sequence[Compared]) -> Table:
    """Return the table of a comparison: T-score on val and total parameters of each arch."""
    table = new_table(
        "on val, all retrained with the same settings",
        "arch",
        "T-score",
        *_figures(found[0].metrics),
        "parameters",
        "in budget",
        "searched - it",
        left=("arch", "in budget"),
        wrap=("searched - it",),
    )
    for item in found:
        name = "searched" if item.name == "best" else item.name
        within = "yes" if item.within_budget else "no"
        more = item.difference
        behind = "" if more is None else f"{more.mean:+.1f} [{more.low:+.1f}, {more.high:+.1f}]"
        figures = _figures(item.metrics).values()
        table.add_row(name, f"{item.score:.2f}", *figures, f"{item.parameters.total:,}", within, behind)
    return table


def searches_table(found: Sequence[SearchesOf]) -> Table:
    """Return the table of a comparison of searches: mean T-scores over the seeds, and what the run's own gains."""
    table = new_table(
        f"searches with {found[0].evaluations[0]} evaluations, {len(found[0].inherited)} seeds; the run's own last",
        "algorithm",
        "inherited",
        "own - it",
        "trained, val",
        "own - it",
        "seeds to see 1 point",
    )
    for item in found:
        gains = (item.inherited_gain, item.trained_gain)
        inherited, trained = ("" if g is None else f"{g.mean:+.2f} [{g.low:+.2f}, {g.high:+.2f}]" for g in gains)
        seeds = "" if gains[1] is None or gains[1].seeds is None else str(gains[1].seeds)
        table.add_row(
            item.name, f"{fmean(item.inherited):.2f}", inherited, f"{fmean(item.trained):.2f}", trained, seeds
        )
    return table


def runs_table(states: Sequence[RunState]) -> Table:
    """Return the table of runs."""
    table = new_table("runs", "run", "space", "stage", "T-score", "parameters", wrap=("run", "space", "stage"))
    for state in states:
        score = "" if state.score is None else f"{state.score:.2f}"
        parameters = "" if state.parameters is None else f"{state.parameters:,}"
        table.add_row(str(state.path), state.space, state.stage, score, parameters)
    return table


def _figures(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Return the first metric of every task, the one that the T-score sums, by "task metric"."""
    firsts = {task: next(iter(values.items())) for task, values in metrics.items()}
    return {f"{task} {name}": f"{value:.1f}" for task, (name, value) in firsts.items()}
