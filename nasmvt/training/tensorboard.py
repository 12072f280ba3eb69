"""What a training records, for TensorBoard too."""

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nasmvt.errors import UserError


class TensorBoard:
    """Writes the numbers of every entry as scalars, named by their keys: "loss/det/loss_mask".

    Args:
        folder: of the event files; what was written there after the first entry's step counts no more.

    Raises:
        UserError: if TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise UserError("training.tensorboard needs TensorBoard: pip install 'nasmvt[tensorboard]', or turn it off")
        self._folder = folder
        self._writer: Any = None

    def __call__(self, entry: Mapping[str, Any]) -> None:
        """Write an entry of the metrics."""
        step = entry["step"]
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        for name, value in _scalars(entry):
            self._writer.add_scalar(name, value, step)
        self._writer.flush()


def _scalars(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{key}/")
        elif key != "step":
            yield f"{prefix}{key}", value
