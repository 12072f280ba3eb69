"""Settings of a search."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from nasmvt.config import Config

Probability = Annotated[float, Field(ge=0.0, le=1.0)]

_EXECUTION = {"workers", "cpus_per_worker", "gpus_per_worker"}
"""Settings that say how the work is spread."""


class SearchConfig(Config):
    """How the best arch is looked for. The defaults are AutoFormer's (Chen et al., ICCV 2021)."""

    algorithm: Literal["evolution", "random"] = "evolution"
    """`evolution`, or `random`: archs drawn independently, the baseline that evolution has to beat."""

    population: int = Field(default=50, ge=1)
    """Archs of the first generation, drawn at random; later ones are filled up to it with random archs."""

    parents: int = Field(default=10, ge=1)
    """Best archs of all generations so far that the next one descends from; at most `population`."""

    generations: int = Field(default=20, ge=1)
    """Generations that are evaluated, the random first one included."""

    mutants: int = Field(default=25, ge=0)
    """Mutants of one parent in every generation but the first."""

    crossovers: int = Field(default=25, ge=0)
    """Children of two parents in every generation but the first."""

    mutation_probability: Probability = 0.2
    """Chance that a mutant redraws a choice made per block, for each block."""

    global_mutation_probability: Probability = 0.4
    """Chance that a mutant redraws a choice made once (depth, width)."""

    candidates: int | None = Field(default=None, ge=1)
    """Archs that random search evaluates; None: as many as evolution would. Evolution ignores it."""

    images: int | None = Field(default=None, ge=1)
    """Images of each task's search split that a candidate is evaluated on; None: all."""

    recalibration_images: int = Field(default=64, ge=0)
    """Training images of each task that re-estimate a candidate's BatchNorm statistics; 0: keep the supernet's."""

    workers: int = Field(default=2, ge=0)
    """Ray workers, each evaluating one candidate on one task at a time; 0: in this process, without Ray."""

    cpus_per_worker: int = Field(default=1, ge=1)
    """CPU cores and torch threads of a worker, or torch threads of a search in this process. Figures agree to
    the last bit between any numbers of workers, but not always between numbers of threads."""

    gpus_per_worker: float | None = Field(default=None, ge=0)
    """GPUs of a worker, fractions allowed; None: on CUDA an even part of this machine's GPUs (a whole one
    each on a given cluster), on the CPU none."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.algorithm == "evolution" and self.parents > self.population:
            raise ValueError(
                f"'parents' ({self.parents}) can't exceed 'population' ({self.population}): "
                "lower 'parents' or raise 'population'"
            )
        return self

    @property
    def per_generation(self) -> int:
        """Archs of every generation but the first."""
        return max(self.population, self.mutants + self.crossovers)

    @property
    def evaluations(self) -> int:
        """Most archs that the search evaluates; fewer where the space holds fewer within the budget."""
        if self.algorithm == "random" and self.candidates is not None:
            return self.candidates
        return self.population + (self.generations - 1) * self.per_generation

    def identity(self) -> dict[str, Any]:
        """Return the settings that the result depends on: all but how the work is spread."""
        return self.model_dump(mode="json", exclude=_EXECUTION)
