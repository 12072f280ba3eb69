"""Settings of the supernet."""

from typing import Literal, Self

from pydantic import Field, model_validator

from nasmvt.config import Config


class SupernetConfig(Config):
    """How the tasks share the adaptive layers."""

    granularity: Literal["layer", "layer_task"] = "layer"
    """One score per adaptive layer (the paper), or one per layer and task."""
    score_start: float | Literal["uniform"] = "uniform"
    """Initial value of every score: a constant, or `uniform`, drawn from uniform(0, 1) (the paper)."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """A layer is shared while its score is above this."""
    kernel_transformations: bool = False
    """Whether a smaller kernel is the middle of the larger one after a learned transformation, a matrix for each layer
    and step, as in once-for-all; else it is that middle. For families whose kernels are a choice (`efficientnet`)."""


class InitialConfig(Config):
    """Weights that a supernet begins with: those of a published network, or of an earlier model.

    They fill the backbone of every task and the copies that tasks share. A network that is smaller than the space's
    largest one fills its part of it, as the subnet of that size does; the rest is drawn anew. Necks and heads are
    filled where names and shapes fit, which happens with models of nasmvt alone.
    """

    weights: str
    """`timm`: a network that timm publishes (`model`), downloaded once and cached by timm. Else a path: a file of
    tensors under the names of timm or of the family's authors (safetensors, or what `torch.save` wrote); a folder that
    `nasmvt export` wrote; or a run directory, for its supernet."""
    model: str | None = None
    """With `timm`: the name, such as `deit_small_patch16_224.fb_in1k`."""
    arch: str | None = None
    """The named arch of the space that a published network is; null: the one that its tensors fit, or the largest."""
    order: Literal["magnitude", "taylor"] | None = None
    """Puts hidden units and attention heads in the order of their importance, so that smaller subnets keep what matters
    (what the largest network computes stays the same): by the size of the weights that read them, or by what the first
    training batches lose without them, to first order; null: leaves them as they are."""
    order_widths: bool | None = None
    """Whether `order` also puts the channels that blocks and heads have in common in order, of widths that are a
    choice: null: where the family declares that their order is free, and no head depends on it; true: refuses
    otherwise; false: not at all."""
    order_batches: int = Field(default=4, ge=1)
    """Batches of each task that `order: taylor` looks at."""

    @model_validator(mode="after")
    def _model_of_timm(self) -> Self:
        if (self.weights == "timm") != (self.model is not None):
            raise ValueError(
                "weights: timm needs the name of a model, and a path needs none: set or remove initial.model"
            )
        if self.order_widths and self.order is None:
            raise ValueError("order_widths is about an order of importance: set initial.order, too")
        return self
