"""One training loop for the supernet and for a chosen model."""

from nasmvt.training.config import TrainingConfig
from nasmvt.training.loop import Trainer

__all__ = ["Trainer", "TrainingConfig"]
