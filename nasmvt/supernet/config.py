"""Settings of the supernet."""

from typing import Literal

from pydantic import Field

from nasmvt.config import Config


class SupernetConfig(Config):
    """How the tasks share the adaptive layers."""

    granularity: Literal["layer", "layer_task"] = "layer"
    """One score per adaptive layer (the paper), or one per layer and task."""
    score_start: float | Literal["uniform"] = "uniform"
    """Initial value of every score: a constant, or `uniform`, drawn from uniform(0, 1) (the paper)."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """A layer is shared while its score is above this."""
