"""What every question needs: archs, their results, supernets and the scores that archs inherit from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import torch

from nasmvt.api.run import as_texts
from nasmvt.config import parse
from nasmvt.cost import Costs, FeasibleSet
from nasmvt.errors import UserError
from nasmvt.model import MultiTaskModel
from nasmvt.pipeline.datasets import TaskData, open_data
from nasmvt.pipeline.evaluate import evaluate_on_val
from nasmvt.pipeline.experiment import Experiment, apply_change
from nasmvt.pipeline.identity import TaskRecord
from nasmvt.pipeline.retrain import Chosen, load_retrained, retrain
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.stage import Stage
from nasmvt.pipeline.supernet import begin_with_initial, build_supernet, load_supernet
from nasmvt.search import EvaluationSetting, Evaluator, Objective
from nasmvt.seeding import derive_seed
from nasmvt.space import Arch, Sharing
from nasmvt.supernet import Supernet
from nasmvt.tasks.evaluate import evaluate
from nasmvt.tasks.trainable import name_of

from .plan import Comparison, Plan
from .store import Store

CPU = torch.device("cpu")
SCRATCH = "scratch"
"""The start of a training that inherits no weights of a supernet: from published weights, where the plan begins so."""

DRAWN = 10_000
"""Archs that are drawn to choose from."""

Metrics = dict[str, dict[str, float]]
"""In percent, by task and name."""


@dataclass(frozen=True)
class Variant:
    """A way to train a supernet."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the experiment by dotted key."""
    seed: int = 0
    """Another one has other initial weights, and the images in another order."""


class Laboratory:
    """Trains and measures what questions ask for, once.

    Args:
        plan: the settings.
        folder: where everything is kept.

    Raises:
        UserError: if the folder is that of another plan.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.store = Store(folder, _identity(plan.experiment))
        self.experiment = plan.experiment
        self.space = plan.experiment.space
        self.base = Variant("uniform")
        """The supernet that the experiment describes."""
        self._supernets: dict[str, tuple[Run, Supernet]] = {}
        self._alone: dict[str, Costs] = {}
        self._data: dict[tuple[str, ...], Mapping[str, TaskData]] = {}

    # -- archs ------------------------------------------------------------------------------------

    @cached_property
    def costs(self) -> Costs:
        """Costs under the sharing with which results are made."""
        return Costs(self.space, self.run.tasks, self.sharing)

    def costs_alone(self, task: str) -> Costs:
        """Return costs of the networks of one task, of which nothing is shared."""
        if task not in self._alone:
            self._alone[task] = Costs(self.space, {task: self.run.tasks[task]}, Sharing.of({}))
        return self._alone[task]

    def costs_in(self, variant: Variant) -> Costs:
        """Return costs under the sharing that a supernet has learned."""
        return self.costs.under(self.supernet(variant)[1].sharing())

    @cached_property
    def sharing(self) -> Sharing:
        """That of the experiment's supernet before its training: half of the layers by chance, unless set otherwise."""
        return build_supernet(self.experiment, self.run.infos).sharing()

    def size(self, arch: Arch) -> int:
        """Return the total parameters of an arch."""
        return self.costs.parameters(arch).total

    @cached_property
    def spread(self) -> list[Arch]:
        """Archs over the whole range of sizes, smallest first.

        Of many that were drawn uniformly, those whose sizes are nearest to sizes at equal distances on a logarithmic
        scale.
        """
        archs, sizes = self._drawn
        logs = np.log(sizes)
        chosen: dict[Arch, None] = {}
        for wanted in np.linspace(logs.min(), logs.max(), self.plan.archs):
            nearest = (archs[place] for place in abs(logs - wanted).argsort())
            chosen[next(arch for arch in nearest if arch not in chosen)] = None
        return sorted(chosen, key=self.size)

    @cached_property
    def equal(self) -> list[Arch]:
        """Archs of equal size within 3 %: the first that were drawn around the median size.

        Raises:
            UserError: if there are fewer than wanted.
        """
        archs, sizes = self._drawn
        middle = np.median(sizes)
        found = [*dict.fromkeys(archs[place] for place in np.flatnonzero(abs(sizes / middle - 1) <= 0.015))]
        if len(found) < self.plan.equal_archs:
            raise UserError(
                f"equal_archs wants {self.plan.equal_archs} archs within 3 % of {middle:,.0f} parameters, but "
                f"{self.space.name} has {len(found)}: lower it"
            )
        return found[: self.plan.equal_archs]

    @cached_property
    def _drawn(self) -> tuple[list[Arch], np.ndarray]:
        """Archs drawn uniformly, and their total parameters."""
        rng = np.random.default_rng(derive_seed(self.experiment.seed, "spread"))
        indices = FeasibleSet.everything(self.space).sample_indices(DRAWN, rng)
        return [self.space.decode(arch) for arch in indices], self.costs.totals(indices)[:, 0]

    # -- results ----------------------------------------------------------------------------------

    def result(
        self,
        arch: Arch,
        seed: int,
        *,
        start: Variant | None = None,
        steps: int | None = None,
        sharing: tuple[str, Sharing] | None = None,
        tasks: Sequence[str] = (),
    ) -> Metrics:
        """Return what a training of an arch reaches on val.

        Args:
            arch: the arch.
            seed: of the training, from 1.
            start: the supernet that it begins with; None: from scratch.
            steps: of the training; None: `retrain.steps`.
            sharing: another one than that of the supernet, or from scratch the laboratory's, with a name for it.
            tasks: those that are trained; none: all.
        """
        length = self.experiment.retrain.steps if steps is None else steps
        named, shared = sharing or ("", Sharing.of({}) if tasks else self.sharing)
        if start is not None and sharing is None:
            shared = self.supernet(start, tasks)[1].sharing()
        begin = SCRATCH if start is None else start.name
        parts = [begin, str(length), named, "-".join(tasks), arch.id, str(seed)]
        key = "result/" + "/".join(part for part in parts if part)
        return self.store.get(key, lambda: self._train(key, arch, seed, start, length, shared, tuple(tasks)))

    def after_training(self, variant: Variant, arch: Arch, steps: int) -> Metrics:
        """Return the metrics of an arch on the search split after a short training from a supernet's weights."""
        key = f"after/{variant.name}/{steps}/{arch.id}"
        return self.store.get(key, lambda: self._train_shortly(key, variant, arch, steps))

    def _train_shortly(self, key: str, variant: Variant, arch: Arch, steps: int) -> Metrics:
        model = self._trained(key, arch, 0, variant, steps, self.supernet(variant)[1].sharing(), ())
        count = self.experiment.search.images
        images = {name: data.search_images(count) for name, data in self.data(tuple(model.tasks)).items()}
        return {name: evaluate(model.task(name), images[name], task, CPU) for name, task in model.tasks.items()}

    def _train(self, *training: Any) -> Metrics:
        """Train as `_trained` does, and measure on val."""
        model = self._trained(*training)
        return evaluate_on_val(model, self.data(tuple(model.tasks)), CPU)

    def _trained(
        self,
        key: str,
        arch: Arch,
        seed: int,
        start: Variant | None,
        steps: int,
        sharing: Sharing,
        tasks: tuple[str, ...],
    ) -> MultiTaskModel:
        base = self._run_of(tasks) if start is None else self.supernet(start, tasks)[0]
        supernet = self._initial(base, seed) if start is None else self.supernet(start, tasks)[1]
        settings = base.experiment.retrain.model_copy(update={"steps": steps})
        run = Run(base.path, base.experiment.model_copy(update={"retrain": settings}), base.records)
        chosen = Chosen(key.removeprefix("result/").replace("/", "-"), arch, sharing)
        folder = run.folder("retrain", chosen.name)
        data = self.data(tuple(run.experiment.tasks))
        fresh = start is None and run.experiment.initial is None
        retrain(run, chosen, supernet, data=data, device=CPU, seed=seed, from_scratch=fresh, resume=folder.exists())
        model = load_retrained(run, chosen.name)
        rmtree(folder)
        return model

    def _initial(self, run: Run, seed: int) -> Supernet:
        """Return a supernet before its training: published weights, if the experiment begins with some, or none."""
        supernet = build_supernet(run.experiment.model_copy(update={"seed": seed}), run.infos)
        begin_with_initial(run.experiment, supernet, self.data(tuple(run.experiment.tasks)), CPU)
        return supernet

    # -- supernets --------------------------------------------------------------------------------

    def supernet(self, variant: Variant, tasks: Sequence[str] = ()) -> tuple[Run, Supernet]:
        """Return a trained supernet and its run; a training that was interrupted goes on."""
        name = "-".join([variant.name, *tasks])
        if name not in self._supernets:
            self.trained_scores(variant, tasks)
            run = Run.open(self.folder / "supernets" / name)
            self._supernets[name] = run, load_supernet(run, CPU)
        return self._supernets[name]

    def trained_scores(self, variant: Variant, tasks: Sequence[str] = ()) -> dict[str, Any]:
        """Train a supernet; return its steps, and its sharing scores before (`start`) and after (`scores`)."""
        name = "-".join([variant.name, *tasks])
        steps = changed(self.experiment, variant.changes).training.steps
        return self.store.get(f"supernet/{name}/{steps}", lambda: self._train_supernet(name, variant, tuple(tasks)))

    def _train_supernet(self, name: str, variant: Variant, tasks: tuple[str, ...]) -> dict[str, Any]:
        experiment = changed(self._of_tasks(tasks), variant.changes)
        path = self.folder / "supernets" / name
        resume = Run.is_at(path)
        run = Run.open(path) if resume else self._run_at(path, experiment)
        seed = experiment.seed if not variant.seed else derive_seed(experiment.seed, "variant", variant.seed) % 2**31
        supernet = self._initial(run, seed)
        before = scores_of(supernet)
        Stage(
            files=run.supernet_files,
            config=run.experiment.training,
            seed=derive_seed(seed, "supernet"),
            data=self.data(tuple(run.experiment.tasks)),
            device=CPU,
            order=variant.seed,
            resume=resume,
        ).run(supernet, begin=lambda: None if resume else run.write())
        return {"steps": run.experiment.training.steps, "start": before, "scores": scores_of(load_supernet(run, CPU))}

    def inherited(
        self,
        variant: Variant,
        arch: Arch,
        *,
        rule: str = "learned",
        compared: Comparison | None = None,
        tasks: Sequence[str] = (),
    ) -> Metrics:
        """Return the metrics of an arch on the search split with a supernet's weights, as a search sees them.

        Args:
            variant: the supernet.
            arch: the arch.
            rule: which layers are shared.
            compared: on which images; None: as the experiment's search says.
            tasks: those of the supernet; none: all.
        """
        config = self.experiment.search
        usual = Comparison(images=config.images, recalibration_images=config.recalibration_images)
        compared = compared or usual
        named = "" if compared == usual else f"images-{compared.images}-{compared.recalibration_images}"
        parts = [variant.name, "-".join(tasks), rule, named, arch.id]
        key = "inherited/" + "/".join(part for part in parts if part)
        return self.store.get(key, lambda: self._inherit(variant, arch, rule, compared, tuple(tasks)))

    def _inherit(
        self, variant: Variant, arch: Arch, rule: Any, compared: Comparison, tasks: tuple[str, ...]
    ) -> Metrics:
        run, supernet = self.supernet(variant, tasks)
        data = self.data(tuple(run.experiment.tasks))
        images = {name: item.search_images(compared.images) for name, item in data.items()}
        plain = {name: item.recalibration_images(compared.recalibration_images) for name, item in data.items()}
        setting = EvaluationSetting(sharing=supernet.sharing(rule), images=images, recalibration=plain)
        evaluate = Evaluator(supernet, setting)
        return {name: evaluate(arch, name) for name in supernet.tasks}

    # -- scores -----------------------------------------------------------------------------------

    def figures(self, metrics: Metrics) -> dict[str, float]:
        """Return the primary metric of each task, and the T-score."""
        objective = Objective.of({name: self.run.tasks[name] for name in metrics})
        found = {name: metrics[name][primary] for name, primary in objective.primaries.items()}
        return {**found, "T-score": objective(metrics)}

    def results(self, archs: Sequence[Arch]) -> list[dict[str, np.ndarray]]:
        """Return the figures of some archs, trained from scratch, for each seed: an array over the archs by name."""
        return [
            self.table([self.figures(self.result(arch, seed)) for arch in archs])
            for seed in range(1, self.plan.seeds + 1)
        ]

    @staticmethod
    def table(rows: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
        """Return figures by name, an array over the rows."""
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    # -- runs and data ----------------------------------------------------------------------------

    @cached_property
    def run(self) -> Run:
        """The run in which archs are trained from scratch, for all tasks."""
        return self._run_of(())

    def _run_of(self, tasks: tuple[str, ...]) -> Run:
        return self._run_at(self.folder / "-".join([SCRATCH, *tasks]), self._of_tasks(tasks))

    def _run_at(self, path: Path, experiment: Experiment) -> Run:
        data = self.data(tuple(experiment.tasks))
        return Run(path, experiment, {name: TaskRecord.of(item, ["train"]) for name, item in data.items()})

    def _of_tasks(self, tasks: tuple[str, ...]) -> Experiment:
        kept = {name: task for name, task in self.experiment.tasks.items() if not tasks or name in tasks}
        return self.experiment.model_copy(update={"tasks": kept})

    def data(self, tasks: tuple[str, ...]) -> Mapping[str, TaskData]:
        """Return the data of some tasks; every set is opened once."""
        if not self._data:
            self._data[()] = open_data(self.experiment)
        return {name: self._data[()][name] for name in tasks}


def changed(experiment: Experiment, changes: Mapping[str, Any]) -> Experiment:
    """Return an experiment with other settings, by dotted key."""
    values = experiment.model_dump(mode="json")
    for change in as_texts(changes):
        apply_change(values, change)
    return parse(Experiment, values, "the laboratory")


def scores_of(supernet: Supernet) -> dict[str, float]:
    """Return the scores of a supernet by layer."""
    return {name_of(key): float(score.detach().mean()) for key, score in supernet.scores.items()}


def mean_results(results: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the mean figures over seeds."""
    return {name: np.mean([result[name] for result in results], axis=0) for name in results[0]}


def ends(costs: Costs) -> tuple[int, int]:
    """Return the total parameters of the smallest and of the largest network of a space."""
    every = FeasibleSet(costs.totals, [None])
    return int(every.least_V[0]), int(every.most_V[0])


def _identity(experiment: Experiment) -> dict[str, Any]:
    """Return what all results depend on: the experiment but for numbers that are in the units' keys, or change none."""
    values = experiment.model_dump(mode="json")
    for stage in ("training", "retrain"):
        del values[stage]["steps"]
    values["search"] = {key: values["search"][key] for key in ("images", "recalibration_images")}
    return values
