"""The first step of the main job: starting a run and training its supernet."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, Unpack

import torch

from nasmvt.data import DataInfo
from nasmvt.errors import UserError, listed
from nasmvt.pipeline.data_report import TaskReport, check_report, report_data
from nasmvt.pipeline.datasets import TaskData, open_data
from nasmvt.pipeline.experiment import Experiment, load_experiment
from nasmvt.pipeline.identity import TaskRecord
from nasmvt.pipeline.initial import read_initial
from nasmvt.pipeline.run import Run, free_path, make_tasks, reserved
from nasmvt.pipeline.stage import Stage
from nasmvt.seeding import derive_seed, seeded
from nasmvt.supernet import Supernet
from nasmvt.supernet.importance import SCORES, gather_gradients, put_in_order
from nasmvt.supernet.initial import Filled, begin_with
from nasmvt.supernet.widths import put_widths_in_order
from nasmvt.training.checkpoint import Checkpoints, load_weights
from nasmvt.training.loop import Listener
from nasmvt.training.processes import ALONE, Processes


class Told(TypedDict, total=False):
    """Who a training tells what, and with whom it is done."""

    listener: Listener | None
    """Notified of every step."""
    on_report: Callable[[Mapping[str, TaskReport]], None] | None
    """Called with the report on the data of a new run, before anything is trained."""
    on_initial: Callable[[Filled], None] | None
    """Called with what the initial weights filled, where the experiment of a new run names some."""
    processes: Processes
    """Those that train together; each calls the same, and the first writes and reports."""


@dataclass(frozen=True, kw_only=True)
class SupernetTraining:
    """The training of a supernet: in a new run directory, or resumed in one."""

    out: Path | None
    """The run directory; None: a new one under `runs/`, or the newest to resume."""
    experiment: Experiment | None
    """None: the run is resumed."""
    accept_changed_data: bool = False
    """Whether a run is resumed even if the data changed since it began."""

    @classmethod
    def of(
        cls,
        experiment: Experiment | str | None = None,
        *,
        out: Path | None = None,
        resume: bool = False,
        changes: Sequence[str] = (),
        seed: int | None = None,
        accept_changed_data: bool = False,
    ) -> "SupernetTraining":
        """Read what is to be trained.

        Args:
            experiment: an experiment, its file, or the name of a shipped one; None: the built-in data set.
            out: the run directory.
            resume: whether to continue a run; it is then continued as it is.
            changes: settings as `--set` takes them.
            seed: of everything random; None: the experiment's.
            accept_changed_data: continue if the data changed since the run began.

        Raises:
            UserError: if a setting breaks a rule, or arguments contradict each other.
        """
        if resume and (experiment is not None or changes or seed is not None):
            raise UserError("a run is resumed as it is: leave out the experiment, changes of its settings and the seed")
        if accept_changed_data and not resume:
            raise UserError(
                "changed data are accepted where a run is resumed, but a new one is begun: leave that out, or resume"
            )
        if resume:
            return cls(out=out, experiment=None, accept_changed_data=accept_changed_data)
        if not isinstance(experiment, Experiment):
            experiment = load_experiment(experiment, changes, seed)
        elif changes or seed is not None:
            raise UserError("an experiment that is loaded has its settings: give changes and seed when it is loaded")
        return cls(out=out, experiment=experiment)

    @property
    def path(self) -> Path:
        """The run directory that there is, or will be.

        Raises:
            UserError: if there is none to resume, or it is taken.
        """
        return Run.open(self.out).path if self.experiment is None else free_path(self.out, self.experiment)

    def train(self, *, device: torch.device, **told: Unpack[Told]) -> Run:
        """Train it on a device (see `train_supernet` and `resume_supernet`); return the run."""
        if self.experiment is not None:
            return train_supernet(self.experiment, out=self.out, device=device, **told)
        run = Run.open(self.out)
        resume_supernet(
            run,
            device=device,
            listener=told.get("listener"),
            accept_changed_data=self.accept_changed_data,
            processes=told.get("processes", ALONE),
        )
        return run


def train_supernet(
    experiment: Experiment, *, out: Path | None = None, device: torch.device, **told: Unpack[Told]
) -> Run:
    """Start a run: check the data, make the run directory, train the supernet.

    Args:
        experiment: the definition of the run.
        out: the run directory to make.
        device: where to train.
        told: who is told what, and with whom it is done.

    Raises:
        UserError: if the data, the initial weights or the run directory break a rule; nothing is written then.
        Interrupted: after Ctrl-C, when a checkpoint is written.
    """
    processes, on_report, on_initial = told.get("processes", ALONE), told.get("on_report"), told.get("on_initial")
    with reserved(out, experiment) if processes.first else nullcontext() as path:
        path = processes.gather(path)[0]
        data = open_data(experiment)
        report = report_data(data) if processes.first else {}
        if on_report is not None and processes.first:
            on_report(report)
        check_report(report)
        records = {name: TaskRecord.of(data[name], list(report[name].splits)) for name in report}
        run = Run(path, experiment, processes.gather(records)[0])
        supernet = build_supernet(experiment, run.infos)
        initial = begin_with_initial(experiment, supernet, data, device)
        if initial is not None and on_initial is not None and processes.first:
            on_initial(initial)

        def begin() -> None:
            run.write()
            run.write_data_report(report)
            if initial is not None:
                run.write_initial(initial)

        _train(run, supernet, data, device, told.get("listener"), processes, begin)
    return run


def resume_supernet(
    run: Run,
    *,
    device: torch.device,
    listener: Listener | None = None,
    accept_changed_data: bool = False,
    processes: Processes = ALONE,
) -> None:
    """Resume the training of a run's supernet, from its checkpoint or, without one, from the start.

    Raises:
        UserError: if the data changed since the run began (and that is not accepted), the checkpoint does not fit, or
            there is none yet and the initial weights changed.
    """
    data = run.open_data(accept_changed=accept_changed_data)
    supernet = build_supernet(run.experiment, run.infos)
    if not Checkpoints(run.supernet_files.checkpoint).exist():
        initial = begin_with_initial(run.experiment, supernet, data, device)
        if initial is not None:
            run.check_initial(initial)
    _train(run, supernet, data, device, listener, processes)


def begin_with_initial(
    experiment: Experiment, supernet: Supernet, data: Mapping[str, TaskData], device: torch.device
) -> Filled | None:
    """Put the weights into a supernet that the experiment begins with, if it names some, in the order that it wants.

    Raises:
        UserError: if they can't be read or do not fit.
    """
    config = experiment.initial
    if config is None:
        return None
    filled = begin_with(supernet, read_initial(config, supernet))
    if config.order is None:
        return filled
    if config.order == "taylor":
        loaders = {name: task.train_loader() for name, task in data.items()}
        batches = ((n, loader.batch(step)) for step in range(config.order_batches) for n, loader in loaders.items())
        with seeded(experiment.seed, "importance"):
            gather_gradients(supernet.to(device), ((name, batch.to(device)) for name, batch in batches))
    score, allowed = SCORES[config.order], config.order_widths
    ordered = []
    if allowed is not False:
        widths, left = put_widths_in_order(supernet, score, required=bool(allowed))
        if widths:
            ordered.append(f"the channels of {listed(widths)} are in the order of importance, by {config.order}")
        if left:
            ordered.append(f"the channels of {listed(left)} stay in their order, which a head or a layer depends on")
    count = put_in_order(supernet, score)
    supernet.zero_grad()
    ordered.append(f"the units of {count} modules are in the order of importance, by {config.order}")
    return replace(filled, ordered=tuple(ordered))


def build_supernet(experiment: Experiment, infos: Mapping[str, DataInfo]) -> Supernet:
    """Build the supernet of an experiment with the weights that its seed gives."""
    with seeded(experiment.seed, "initialisation"):
        return Supernet(experiment.space, make_tasks(experiment, infos), experiment.supernet)


def load_supernet(run: Run, device: torch.device) -> Supernet:
    """Return the trained supernet of a run.

    Raises:
        UserError: if it was not trained to the end yet, or its checkpoint belongs to another space.
    """
    supernet = build_supernet(run.experiment, run.infos)
    load_weights(supernet, Checkpoints(run.supernet_files.checkpoint), run.experiment.training.steps)
    return supernet.to(device)


def _train(
    run: Run,
    supernet: Supernet,
    data: Mapping[str, TaskData],
    device: torch.device,
    listener: Listener | None,
    processes: Processes,
    begin: Callable[[], None] | None = None,
) -> None:
    """Train from the start, where `begin` writes the run directory, or resume in an existing one."""
    stage = Stage(
        files=run.supernet_files,
        config=run.experiment.training,
        seed=derive_seed(run.experiment.seed, "supernet"),
        data=data,
        device=device,
        resume=begin is None,
        listener=listener,
        processes=processes,
    )
    stage.run(supernet.to(device), begin or (lambda: None))
