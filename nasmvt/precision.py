"""The names of the precisions that networks compute in (see `nasmvt.tasks.precision`)."""

from typing import Literal, get_args

Precision = Literal["fp32", "bf16", "fp16"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
