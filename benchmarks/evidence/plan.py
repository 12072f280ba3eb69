"""What a laboratory does: the experiment on which it measures, and how much it measures."""

from pathlib import Path

from pydantic import Field

from nasmvt.api.run import as_texts
from nasmvt.config import Config, parse, read_yaml
from nasmvt.pipeline.experiment import Experiment, load_experiment


class Comparison(Config):
    """How candidates are compared, the settings of a search by these names."""

    images: int | None = Field(default=None, ge=1)
    recalibration_images: int = Field(ge=0)


class Plan(Config):
    """The settings of a laboratory. A result is what a training of an arch reaches on val."""

    experiment: Experiment
    """Data, space and tasks; `training` is the supernet's, `retrain` that of an arch, with which results are made."""
    archs: int = Field(ge=4)
    """Archs over the whole range of sizes, whose results are the yardstick."""
    seeds: int = Field(default=2, ge=2, le=12)
    """Trainings of each; they differ in initial weights, order of the images and augmentation."""
    equal_archs: int = Field(ge=4)
    """E1: archs of equal size."""
    lengths: tuple[float, ...]
    """E1: lengths of the supernet's training, as multiples of `training.steps`."""
    sandwich_archs: int = Field(default=2, ge=2)
    """E1: archs of a sandwich's step, at equal image passes: the largest, the smallest and random ones."""
    sampling_seeds: int = Field(default=1, ge=1)
    """Supernets of each way to sample archs."""
    comparisons: tuple[Comparison, ...] = Field(min_length=1)
    """E1: ways to compare candidates."""
    short_steps: tuple[int, ...] = ()
    """E1: lengths of short trainings, after which archs are ranked anew."""
    retrain_steps: tuple[int, ...]
    """E5: lengths of the trainings."""
    retrain_archs: int = Field(ge=1)
    """E5: archs that are trained."""
    search_seeds: int = Field(ge=2)
    """E2: searches of each algorithm."""
    rivals: int = Field(ge=1)
    """E2: winners of each algorithm that are trained, as many as searches at most."""
    longer_evaluations: int = Field(ge=1)
    """E2: evaluations of a longer search."""
    longer_algorithms: tuple[str, ...] = ()
    """E2: those that do, beside the experiment's and random search near the bound."""
    budget: float = Field(default=0.6, gt=0, lt=1)
    """E2, E4: the bound on the total parameters, as a part of the largest network's."""
    sharing_seeds: int = Field(ge=2)
    """E3, E4: repetitions."""
    sharing_budgets: tuple[float, ...] = ()
    """E3: bounds as parts of the largest network's total parameters; none: `budget`."""

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Read a plan; `experiment` is a file beside it, whose settings `changes` replaces by dotted key.

        Raises:
            UserError: if a key or value breaks a rule.
        """
        values = read_yaml(path)
        changes = as_texts(values.pop("changes", {}))
        experiment = load_experiment(path.parent / str(values.get("experiment")), changes)
        return parse(cls, {**values, "experiment": experiment}, str(path))
