"""Settings of a search."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from nasmvt.config import Config, images_for_batches
from nasmvt.precision import Precision
from nasmvt.search.strategies import SEARCHERS
from nasmvt.search.workers import WorkerCount

Probability = Annotated[float, Field(ge=0.0, le=1.0)]

_EXECUTION = {"workers", "cpus_per_worker", "gpus_per_worker"}
"""Settings that only distribute the work."""

_SURROGATE = {"screening", "explored", "least_correlation"}
_UNUSED = {
    "evolution": _SURROGATE,
    "nsga2": _SURROGATE | {"near_bounds"},
    "random": _SURROGATE | {"near_bounds"},
}
"""Settings that an algorithm does not read."""


class SearchConfig(Config):
    """How to search for the best arch. The sizes and probabilities are AutoFormer's (Chen et al., ICCV 2021)."""

    algorithm: Annotated[str, AfterValidator(SEARCHERS.check)] = "predictor"
    """`predictor`: evolution whose children a surrogate screens (chosen in docs/evidence.md); `evolution` without one;
    `nsga2` for several objectives; `random`: archs drawn independently, the baseline of all; or `module:name` for one
    that a module of yours registers."""

    maximize: tuple[str, ...] = Field(default=("t-score",), min_length=1)
    """What is to be high: `t-score`, a task's first metric by the name of the task, or another: `det:mask_map`."""

    minimize: tuple[str, ...] = ()
    """What is to be low: `parameters`, `gmacs:TASK`, or `latency:TASK`. With more than one objective the
    result is a front."""

    population: int = Field(default=50, ge=1)
    """Size of the first generation: the named archs of the space and its largest (for `nsga2` its smallest, too), as
    far as they are within the bounds, and others drawn at random; smaller later generations are filled up with random
    archs. `nsga2` lets as many survive."""

    near_bounds: Probability = 0.5
    """Part of the first generation that is drawn close to the bounds: from the archs of at least 95 % of the first one
    (the total parameters, if these are bounded), or of the largest network where it does not bind. Ignored by `nsga2`
    and `random`."""

    parents: int = Field(default=10, ge=1)
    """Number of best archs so far that serve as parents of the next generation; at most `population`. Ignored by
    `nsga2`."""

    generations: int = Field(default=20, ge=1)
    """Number of generations, including the random first one."""

    mutants: int = Field(default=25, ge=0)
    """Mutants (of one parent each) per generation after the first."""

    crossovers: int = Field(default=25, ge=0)
    """Children (of two parents each) per generation after the first."""

    mutation_probability: Probability = 0.2
    """Probability that a mutant redraws a choice made per block, for each block."""

    global_mutation_probability: Probability = 0.4
    """Probability that a mutant redraws a choice made once (depth, width)."""

    screening: int = Field(default=10, ge=1)
    """Children that `predictor` breeds for each one that it has evaluated."""

    explored: Probability = 0.2
    """Part of a generation that `predictor` takes from the children at random, whatever is predicted of them."""

    least_correlation: float = Field(default=0.2, ge=-1.0, le=1.0)
    """Kendall's rank correlation of what was predicted of a generation with what was found. Below it, `predictor`
    breeds the next one as `evolution` does."""

    candidates: int | None = Field(default=None, ge=1)
    """Number of archs that random search evaluates; None: as many as the others would. Ignored by these."""

    race: bool = False
    """Whether the archs of a generation are compared on parts of the images first, and those that are worse than what
    the search goes on with, beyond the noise, are dropped. For `evolution` and `random` by the T-score."""

    images: int | None = Field(default=None, ge=1)
    """Images of each task's search split that a candidate is evaluated on; None: all."""

    recalibration_images: int = Field(default=256, ge=0)
    """Training images of each task for re-estimating a candidate's BatchNorm statistics; 0: use the supernet's.
    Chosen in docs/evidence.md."""

    precision: Precision = "fp32"
    """In which numbers candidates compute: `fp32`, or `bf16` or `fp16` by autocast."""

    workers: WorkerCount = 2
    """Ray workers, each evaluating one candidate on one task at a time; 0: in this process, without Ray. On a cluster
    whose nodes come and go, `{min: 2, max: 8}`."""

    cpus_per_worker: int = Field(default=1, ge=1)
    """CPU cores and torch threads of a worker, or torch threads of a search in this process. Metrics are
    bitwise equal for any number of workers, but not always for different numbers of threads."""

    gpus_per_worker: float | None = Field(default=None, ge=0)
    """GPUs per worker, fractions allowed; None: on CUDA an equal share of this machine's GPUs (one GPU each on a
    given cluster), on the CPU none."""

    @model_validator(mode="before")
    @classmethod
    def _accept_batches(cls, values: Any) -> Any:
        return images_for_batches(values)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.algorithm in ("evolution", "predictor") and self.parents > self.population:
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
        """Upper bound on the archs that the search evaluates; there may be fewer within the budget."""
        if self.algorithm == "random" and self.candidates is not None:
            return self.candidates
        return self.population + (self.generations - 1) * self.per_generation

    def identity(self) -> dict[str, Any]:
        """Return the settings that the result depends on: all except those that only distribute the work.

        The usual precision is left out, as journals of 0.2 know of no other, and so is what is not in use: a race, and
        settings that the algorithm does not read.
        """
        exact = {"precision"} if self.precision == "fp32" else set()
        whole = set() if self.race else {"race"}
        unused = _UNUSED.get(self.algorithm, set())
        return self.model_dump(mode="json", exclude=_EXECUTION | exact | unused | whole)
