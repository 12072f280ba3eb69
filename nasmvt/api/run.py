"""The steps on a run: training, search, retraining, comparison, report."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from nasmvt.cost import Budget, parse_budget, parse_gmacs, parse_latency, parse_sharing
from nasmvt.errors import UserError
from nasmvt.pipeline.compare import compare as compare_run
from nasmvt.pipeline.comparison import Compared
from nasmvt.pipeline.experiment import Experiment, load_experiment
from nasmvt.pipeline.latency_bound import search_costs
from nasmvt.pipeline.report import Report
from nasmvt.pipeline.retrain import Retraining
from nasmvt.pipeline.run import Run, device_of
from nasmvt.pipeline.search import search as search_run
from nasmvt.pipeline.search import with_settings
from nasmvt.pipeline.supernet import load_supernet, resume_supernet
from nasmvt.pipeline.supernet import train_supernet as train_run
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
    target = device_of(device)
    if resume:
        if experiment is not None or changes or seed is not None:
            raise UserError("resume continues a run as it is: leave out the experiment, changes and seed")
        run = open_run(out)
        resume_supernet(run, device=target, listener=listener, accept_changed_data=accept_changed_data)
        return run
    if not isinstance(experiment, Experiment):
        name = None if experiment is None else str(experiment)
        experiment = load_experiment(name, as_texts(changes), seed)
    elif changes or seed is not None:
        raise UserError("an experiment that is loaded has its settings: give changes and seed when it is loaded")
    return train_run(experiment, out=None if out is None else Path(out), device=target, listener=listener)


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
        settings: of the search, in place of the experiment's (see `nasmvt.search.SearchConfig`): `workers=0`.

    Raises:
        UserError: if nothing is within the bounds, a setting breaks a rule, or the supernet is not trained.
    """
    least, most = parse_budget(_text(budget), _text(at_least))
    gmacs = parse_gmacs(f"{task}={limit}" for task, limit in (max_gmacs or {}).items())
    times = parse_latency(f"{task}={limit}" for task, limit in (max_latency or {}).items())
    wanted = Budget(most, gmacs, parse_sharing(sharing), least, times)
    target, opened = device_of(device), open_run(run)
    config = with_settings(opened.experiment.search, **settings)
    supernet = load_supernet(opened, target)
    folder, table = (None if path is None else Path(path) for path in (out, latency))
    costs = search_costs(opened, supernet, wanted, config, table=table, threads=threads, device=device, out=folder)
    bound = wanted.resolve(costs)
    return search_run(
        opened,
        supernet,
        costs,
        bound,
        bound.feasible(costs),
        config,
        device=target,
        address=address,
        out=folder,
        seed=seed,
        listener=listener,
        accept_changed_data=accept_changed_data,
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


def _silent(title: str) -> AbstractContextManager[None]:
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


def report(run: AnyRun = None) -> Path:
    """Write the HTML page about a run, whatever steps were done so far; return its path."""
    opened = open_run(run)
    Report(opened).write()
    return opened.report_path


def _text(amount: int | str | None) -> str | None:
    return None if amount is None else str(amount)


def as_texts(changes: Mapping[str, Any] | None) -> list[str]:
    """Return settings as `--set` takes them: "training.steps=100"."""
    return [f"{key}={dump_yaml_line(value)}" for key, value in (changes or {}).items()]
