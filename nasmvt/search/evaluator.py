"""Evaluating a candidate on one task."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import torch

from nasmvt.data.eval_set import EvalSet
from nasmvt.data.geometry import Size
from nasmvt.data.types import Batch
from nasmvt.precision import Precision
from nasmvt.search.race import RUNGS
from nasmvt.space import Arch, Sharing
from nasmvt.supernet import Supernet
from nasmvt.tasks.evaluate import evaluate
from nasmvt.tasks.recalibrate import recalibrate


class Evaluator:
    """Evaluates subnets with the supernet's weights; the same in this process or a worker.

    The result is a function of (arch, task) alone: the same on the same machine and number of threads.

    Args:
        supernet: the trained weights.
        sharing: which layers the tasks share.
        images: evaluation batches of the search split of every task.
        recalibration: training images of every task that BatchNorm statistics are estimated on, in batches.
        device: where networks run.
        precision: in which they compute.
        figures: the values of each task's metric that are needed; others may be missing. None: all.
        blocks: of a search that races: the images of every task, block by block (see `nasmvt.search.race`).

    Raises:
        UserError: if a metric has no such value.
    """

    def __init__(
        self,
        supernet: Supernet,
        sharing: Sharing,
        images: Mapping[str, Iterable[Batch]],
        recalibration: Mapping[str, Iterable[Batch]],
        device: torch.device | str = "cpu",
        precision: Precision = "fp32",
        figures: Mapping[str, Collection[str]] | None = None,
        blocks: Mapping[str, Sequence[Iterable[Batch]]] | None = None,
    ) -> None:
        self.supernet = supernet
        self.images = images
        self.blocks = blocks or {}
        self.recalibration = recalibration
        self.device = torch.device(device)
        self.precision: Precision = precision
        self.sharing = sharing
        self.unread = {name: supernet.tasks[name].unread(needed) for name, needed in (figures or {}).items()}

    def __call__(self, arch: Arch, task: str, rung: int | None = None) -> dict[str, float]:
        """Return the metrics of one task in percent; given a rung, the first one on each of its blocks.

        Raises:
            UserError: if the search split of the task is empty.
        """
        network = self.supernet.materialize(arch, self.sharing, (task,)).task(task).to(self.device)
        if task in self.unread:
            network.strip(self.unread[task])
        config = self.supernet.tasks[task]
        size = config.size(self.supernet.space, arch)
        recalibrate(network, _placed(self.recalibration[task], size), self.device, precision=self.precision)

        def measured(images: Iterable[Batch]) -> dict[str, float]:
            return evaluate(network, _placed(images, size), config, self.device, self.precision)

        if rung is None:
            return measured(self.images[task])
        return {str(block): measured(self.blocks[task][block])[config.primary] for block in RUNGS[rung]}


def _placed(images: Iterable[Batch], size: Size) -> Iterable[Batch]:
    """Return images placed for a size; batches that were made before have theirs."""
    return images.at(size) if isinstance(images, EvalSet) else images
