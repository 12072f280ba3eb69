"""The trainings of a run as the work of Ray's workers."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from nasmvt.pipeline.retrain import Chosen, Retraining
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.supernet import SupernetTraining, load_supernet
from nasmvt.training.processes import Processes
from nasmvt.training.ray_workers import Tell


class _Listener:
    """Passes on what a training tells."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def on_step(self, *values: object) -> None:
        self._tell("on_step", *values)

    def on_evaluation(self, *values: object) -> None:
        self._tell("on_evaluation", *values)


@dataclass(frozen=True, kw_only=True)
class SupernetWork:
    """The training of a supernet: begun, or resumed where an earlier attempt has begun it."""

    training: SupernetTraining
    """Its run directory is one that all nodes see."""

    @classmethod
    def of(cls, training: SupernetTraining) -> "SupernetWork":
        """Return the work of a training, in a directory that is found or chosen now."""
        return cls(training=replace(training, out=training.path.absolute()))

    @property
    def out(self) -> Path:
        """The run directory."""
        return self.training.path if self.training.out is None else self.training.out

    def __call__(self, processes: Processes, device: torch.device, tell: Tell) -> None:
        """Do a worker's share."""
        out = self.out
        if processes.first and out.is_dir() and not any(out.iterdir()):
            out.rmdir()  # an earlier attempt was killed before it could write
        begun = any(processes.gather(Run.is_at(out)))
        training = replace(self.training, experiment=None) if begun else self.training
        training.train(
            device=device,
            listener=_Listener(tell) if processes.first else None,
            on_report=lambda report: tell("on_report", report),
            on_initial=lambda filled: tell("on_initial", filled),
            processes=processes,
        )


@dataclass(frozen=True, kw_only=True)
class RetrainWork:
    """The training of a chosen arch: begun, or resumed where an earlier attempt has begun it."""

    run: Path
    chosen: Chosen
    from_scratch: bool = False
    accept_changed_data: bool = False

    def __call__(self, processes: Processes, device: torch.device, tell: Tell) -> None:
        """Do a worker's share."""
        run = Run.open(self.run)
        work = Retraining(
            run=run,
            chosen=self.chosen,
            supernet=load_supernet(run, device),
            accept_changed_data=self.accept_changed_data,
        )
        work.train(
            from_scratch=self.from_scratch,
            resume=any(processes.gather(work.folder.exists())),
            listener=_Listener(tell) if processes.first else None,
            processes=processes,
        )


def notes_of(run: Path) -> Path:
    """Return where Ray may write its own notes while it trains for a run: beside it, where all nodes see it."""
    return run.absolute().with_name(f".{run.name}.ray")
