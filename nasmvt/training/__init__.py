"""One training loop for the supernet and for a chosen model."""

from nasmvt.training.config import TrainingConfig as TrainingConfig
from nasmvt.training.loop import Trainer as Trainer
