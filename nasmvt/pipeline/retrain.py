"""Training the chosen arch further, as plain networks with tied tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from nasmvt.errors import UserError
from nasmvt.model import MultiTaskModel
from nasmvt.pipeline.archs import ArchFile, arch_path, find_arch
from nasmvt.pipeline.datasets import TaskData
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.stage import Stage
from nasmvt.pipeline.supernet import load_supernet
from nasmvt.seeding import derive_seed, seeded
from nasmvt.space import Arch, Sharing
from nasmvt.supernet import Supernet
from nasmvt.tasks.compiled import check_compiler, compile_network
from nasmvt.training.checkpoint import Checkpoints, load_weights
from nasmvt.training.loop import Listener
from nasmvt.training.processes import ALONE, Processes


@dataclass(frozen=True)
class Chosen:
    """An arch to train further, and how its tasks share layers."""

    name: str
    """Names the folder `retrain/<name>`."""
    arch: Arch
    sharing: Sharing


def choose_arch(run: Run, name: str, sharing: Sharing, *, accept_unfinished: bool = False) -> Chosen:
    """Return the arch that a name refers to.

    Args:
        run: the run with the search and the space.
        name: "best" (the search's), "smallest", "largest", a named arch of the space, or a YAML file.
        sharing: for an arch whose file gives none.
        accept_unfinished: accept the result of an interrupted search.

    Raises:
        UserError: if there is no such arch, or the search has not found one yet or was interrupted.
    """
    path = arch_path(name, run.best_path)
    if path is not None and not accept_unfinished and name not in run.experiment.space.archs:
        (run.best() if name == "best" else ArchFile.read(path)).check_complete(path)
    arch, own = find_arch(run.experiment.space, name, run.best_path)
    return Chosen(folder_of(run, name), arch, sharing if own is None else own)


def folder_of(run: Run, name: str) -> str:
    """Return the folder under `retrain` of an arch given by name or file.

    That of a file is its stem; of another search's best.yaml it is the name of that search's folder.
    """
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        return name
    if path.stem == "best" and path.resolve() != run.best_path.resolve():
        return path.resolve().parent.name
    return path.stem


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """An arch of a run that is to be trained further, and the weights that it starts from."""

    run: Run
    chosen: Chosen
    supernet: Supernet
    accept_changed_data: bool = False
    """Whether it is trained even if the data changed since the run began."""

    @classmethod
    def of(
        cls,
        run: Run,
        arch: str,
        device: torch.device,
        *,
        accept_unfinished: bool = False,
        accept_changed_data: bool = False,
    ) -> "Retraining":
        """Choose an arch by its name (see `choose_arch`).

        Raises:
            UserError: if the supernet is not trained, or there is no such arch.
        """
        supernet = load_supernet(run, device)
        chosen = choose_arch(run, arch, supernet.sharing(), accept_unfinished=accept_unfinished)
        return cls(run=run, chosen=chosen, supernet=supernet, accept_changed_data=accept_changed_data)

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.run.folder("retrain", self.chosen.name)

    def train(
        self,
        *,
        from_scratch: bool = False,
        resume: bool = False,
        listener: Listener | None = None,
        processes: Processes = ALONE,
    ) -> MultiTaskModel:
        """Train it where the supernet is (see `retrain`)."""
        return retrain(
            self.run,
            self.chosen,
            self.supernet,
            data=self.run.open_data(accept_changed=self.accept_changed_data),
            device=self.supernet.device,
            from_scratch=from_scratch,
            resume=resume,
            listener=listener,
            processes=processes,
        )


def retrain(
    run: Run,
    chosen: Chosen,
    supernet: Supernet,
    *,
    data: Mapping[str, TaskData],
    device: torch.device,
    seed: int = 0,
    from_scratch: bool = False,
    resume: bool = False,
    listener: Listener | None = None,
    processes: Processes = ALONE,
) -> MultiTaskModel:
    """Train an arch with its sharing as plain networks, from the supernet's weights or from scratch.

    Args:
        run: the run; gives the settings.
        chosen: what is trained.
        supernet: the weights that it starts from.
        data: of every task.
        device: where it is trained.
        seed: another one repeats the training with other randomness.
        from_scratch: start from fresh weights.
        resume: go on with a training that was begun.
        listener: told of every step.

    Raises:
        UserError: if the arch was trained already and `resume` is off, if there is nothing to resume and it
            is on, or if the folder holds another arch of that name.
        Interrupted: after Ctrl-C, when a checkpoint is written.
    """
    files = run.retrain_files(chosen.name)
    folder = files.folder
    check_folder(folder, processes.gather(folder.exists())[0], resume)
    model = _start(run, chosen, supernet, from_scratch, seed).to(device)
    model.name = chosen.name
    if run.experiment.retrain.compile:
        check_compiler(device, "retrain.compile")
        for name in model.tasks:
            compile_network(model.task(name))
    path = files.arch
    arch = ArchFile.of(chosen.arch, model.sharing)
    if resume and path.is_file() and ArchFile.read(path) != arch:
        raise UserError(f"{path} is not the arch that {chosen.name!r} now means: delete {folder} and retrain it anew")

    stage = Stage(
        files=files,
        config=run.experiment.retrain,
        seed=derive_seed(run.experiment.seed, "retrain", *([seed] if seed else [])),
        data=data,
        device=device,
        order=seed,
        resume=resume,
        listener=listener,
        processes=processes,
    )
    stage.run(model, begin=lambda: arch.write(path))
    return model


def check_folder(folder: Path, exists: bool, resume: bool) -> None:
    """Refuse a retraining that would overwrite another, or continue none.

    Raises:
        UserError: naming the folder.
    """
    if exists and not resume:
        raise UserError(f"{folder} exists: pass --resume to continue it, or delete it")
    if resume and not exists:
        raise UserError(f"--resume continues a retraining, but there is no {folder}: leave --resume out")


def load_retrained(run: Run, name: str) -> MultiTaskModel:
    """Return a retrained model of a run.

    Raises:
        UserError: if it was not trained to the end yet.
    """
    files = run.retrain_files(name)
    content = run.retrained(name)
    sharing = content.read_sharing()
    if sharing is None:
        raise UserError(f"the key 'sharing' is missing in {files.arch}: put a copy in its place, or retrain anew")
    model = MultiTaskModel.fresh(
        run.experiment.space, run.tasks, content.read_arch(run.experiment.space, files.arch), sharing
    )
    load_weights(model, Checkpoints(files.checkpoint), run.experiment.retrain.steps)
    return model


def _start(run: Run, chosen: Chosen, supernet: Supernet, from_scratch: bool, seed: int) -> MultiTaskModel:
    if not from_scratch:
        return supernet.materialize(chosen.arch, chosen.sharing)
    with seeded(run.experiment.seed, "from scratch", *([seed] if seed else [])):
        return MultiTaskModel.fresh(run.experiment.space, run.tasks, chosen.arch, chosen.sharing)
