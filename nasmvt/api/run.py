"""The steps on a run: training, search, retraining, comparison, report."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from nasmvt.cost import Budget
from nasmvt.pipeline.against import SearchesOf, write_searches
from nasmvt.pipeline.against import compare_searches as compare_searches_of
from nasmvt.pipeline.compare import compare as compare_run
from nasmvt.pipeline.comparison import Compared
from nasmvt.pipeline.experiment import Experiment
from nasmvt.pipeline.report import Report
from nasmvt.pipeline.retrain import Retraining
from nasmvt.pipeline.run import Run, device_of
from nasmvt.pipeline.search import Searching
from nasmvt.pipeline.supernet import SupernetTraining
from nasmvt.search import Candidate, SearchListener
from nasmvt.training.loop import Listener
from nasmvt.yaml_text import dump_yaml_line

AnyRun = Run | Path | str | None
"""A run or its directory; None: the newest under `runs/`."""


def open_run(run: AnyRun = None) -> Run:
    """Return a run.

    Raises:
        UserError: if there is none, the folder is not a run directory, or its settings break a rule.
    """
    return run if isinstance(run, Run) else Run.open(None if run is None else Path(run))


def train_supernet(
    experiment: Experiment | Path | str | None = None,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    changes: Mapping[str, Any] | None = None,
    seed: int | None = None,
    device: str = "auto",
    listener: Listener | None = None,
    accept_changed_data: bool = False,
) -> Run:
    """Start a run and train its supernet, or resume that of the run in `out`.

    Args:
        experiment: an experiment, its file, or the name of a shipped one; None: the built-in data set.
        out: the run directory; None: a new one under `runs/`, or the newest to resume.
        resume: whether to continue a run; it is then continued as it is.
        changes: settings by dotted key, such as `{"training.steps": 100}`.
        seed: of everything random; None: the experiment's.
        device: "cpu", "cuda", "cuda:1" ...; "auto": CUDA if there is any.
        listener: notified of every step and evaluation.
        accept_changed_data: continue if the data changed since the run began.

    Raises:
        UserError: if a setting, the data or the run directory break a rule.
    """
    training = SupernetTraining.of(
        experiment if experiment is None or isinstance(experiment, Experiment) else str(experiment),
        out=_path(out),
        resume=resume,
        changes=as_texts(changes),
        seed=seed,
        accept_changed_data=accept_changed_data,
    )
    return training.train(device=device_of(device), listener=listener)


def search(
    run: AnyRun = None,
    *,
    budget: int | str | None = None,
    at_least: int | str | None = None,
    max_gmacs: Mapping[str, float | str] | None = None,
    max_latency: Mapping[str, float | str] | None = None,
    latency: Path | str | None = None,
    threads: int | None = None,
    sharing: str = "learned",
    out: Path | str | None = None,
    seed: int | None = None,
    device: str = "auto",
    address: str | None = None,
    listener: SearchListener | None = None,
    accept_changed_data: bool = False,
    init: Path | str | None = None,
    **settings: Any,
) -> list[Candidate]:
    """Search a run's supernet for the best arch within a budget; return all candidates, best first.

    An interrupted search is continued by the same call.

    Args:
        run: the run.
        budget: upper bound on the total parameters, heads included: 2_500_000, "2.5M", "60%" of the largest network's,
            or a range "20M..25M"; None: no bound.
        at_least: lower bound on them.
        max_gmacs: upper bound on a task's multiply-accumulates per image, in 10^9, by task: `{"det": 400}`.
        max_latency: upper bound on the time of a call of a task's network, in milliseconds, by task: `{"det": 25}`, or
            with a unit or as a share: "800us", "60%".
        latency: a latency table (see `nasmvt.LatencyTable`); None: the run's own, which is measured if it is missing.
        threads: whose latency counts; None: the table's, or 1.
        sharing: which adaptive layers are shared: "learned", "all" or "none".
        out: another folder for the results; None: the run's own.
        seed: of the search; None: the run's.
        device: where candidates are evaluated, see `train_supernet`.
        address: a Ray cluster; None: a local Ray.
        listener: notified of every candidate.
        accept_changed_data: continue if the data changed since the run began.
        init: the folder of another search of this supernet, to begin with what it found.
        settings: of the search, in place of the experiment's (see `nasmvt.search.SearchConfig`): `workers=0`.

    Raises:
        UserError: if nothing is within the bounds, a setting breaks a rule, or the supernet is not trained.
    """
    gmacs, times = (
        [f"{task}={limit}" for task, limit in (limits or {}).items()] for limits in (max_gmacs, max_latency)
    )
    wanted = Budget.parse(_text(budget), _text(at_least), gmacs, times, sharing)
    work = Searching.of(
        open_run(run), wanted, device=device, table=_path(latency), threads=threads, out=_path(out), **settings
    )
    return work.search(
        address=address, seed=seed, listener=listener, accept_changed_data=accept_changed_data, init=_path(init)
    )


def retrain(
    run: AnyRun = None,
    *,
    arch: str = "best",
    from_scratch: bool = False,
    resume: bool = False,
    device: str = "auto",
    listener: Listener | None = None,
    accept_unfinished: bool = False,
    accept_changed_data: bool = False,
) -> None:
    """Train an arch further, as plain networks with tied tensors.

    Args:
        run: the run.
        arch: "best" (the search's), "smallest", "largest", a named arch of the space, or a YAML file.
        from_scratch: start from fresh weights, not from the supernet's.
        resume: continue an interrupted retraining.
        device: see `train_supernet`.
        listener: notified of every step and evaluation.
        accept_unfinished: accept the result of an interrupted search.
        accept_changed_data: continue if the data changed since the run began.

    Raises:
        UserError: if there is no such arch, or it was retrained already.
    """
    work = Retraining.of(
        open_run(run),
        arch,
        device_of(device),
        accept_unfinished=accept_unfinished,
        accept_changed_data=accept_changed_data,
    )
    work.train(from_scratch=from_scratch, resume=resume, listener=listener)


def _silent(title: str = "") -> AbstractContextManager[None]:
    return nullcontext()


def compare(
    run: AnyRun = None,
    *,
    seeds: int = 1,
    device: str = "auto",
    progress: Callable[[str], AbstractContextManager[Listener | None]] = _silent,
    accept_unfinished: bool = False,
    accept_changed_data: bool = False,
) -> Sequence[Compared]:
    """Retrain the searched arch and others with the same settings, measure them on `val`, and record the result.

    Args:
        run: the run.
        seeds: trainings of each arch.
        device: see `train_supernet`.
        progress: returns a listener, as a context, for the training of a title.
        accept_unfinished: accept the result of an interrupted search.
        accept_changed_data: continue if the data changed since the run began.

    Raises:
        UserError: if the run has no search result.
    """
    opened = open_run(run)
    found = compare_run(
        opened,
        device=device_of(device),
        progress=progress,
        seeds=seeds,
        accept_unfinished=accept_unfinished,
        accept_changed_data=accept_changed_data,
    )
    opened.write_comparison(found)
    return found


def compare_searches(
    run: AnyRun = None,
    against: Sequence[str] = ("random",),
    *,
    seeds: int = 1,
    device: str = "auto",
    address: str | None = None,
    searching: Callable[[], AbstractContextManager[SearchListener | None]] = _silent,
    training: Callable[[str], AbstractContextManager[Listener | None]] = _silent,
    accept_changed_data: bool = False,
) -> Sequence[SearchesOf]:
    """Search anew with the run's algorithm and others, train what each finds, measure it on `val`, and record it.

    What was searched or trained already is not done again.

    Args:
        run: the run, with the result of a search.
        against: the other algorithms; each has as many evaluations.
        seeds: searches and trainings of each algorithm.
        device: see `train_supernet`.
        address: a Ray cluster for the searches; None: a local Ray.
        searching: returns a listener, as a context, for a search.
        training: returns a listener, as a context, for the training of a title.
        accept_changed_data: continue if the data changed since the run began.

    Raises:
        UserError: if the run has no search result, or an algorithm does not exist or is the run's own.
    """
    opened = open_run(run)
    found = compare_searches_of(
        opened,
        device=device_of(device),
        against=against,
        seeds=seeds,
        searching=searching,
        training=training,
        address=address,
        accept_changed_data=accept_changed_data,
    )
    write_searches(opened, found)
    return found


def report(run: AnyRun = None) -> Path:
    """Write the HTML page about a run, whatever steps were done so far; return its path."""
    opened = open_run(run)
    Report(opened).write()
    return opened.report_path


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)


def _text(amount: int | str | None) -> str | None:
    return None if amount is None else str(amount)


def as_texts(changes: Mapping[str, Any] | None) -> list[str]:
    """Return settings as `--set` takes them: "training.steps=100"."""
    return [f"{key}={dump_yaml_line(value)}" for key, value in (changes or {}).items()]
