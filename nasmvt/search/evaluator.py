"""Evaluating a candidate on one task."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

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


@dataclass(frozen=True, kw_only=True)
class EvaluationSetting:
    """How candidates are evaluated, whatever the weights."""

    sharing: Sharing
    """Which layers the tasks share."""
    images: Mapping[str, Iterable[Batch]]
    """Evaluation batches of the search split of every task; picklable for workers (see `EvalSet`), which read their
    images themselves."""
    recalibration: Mapping[str, Iterable[Batch]]
    """Training images of every task that BatchNorm statistics are estimated on, in batches."""
    device: str = "cpu"
    """Where networks run."""
    precision: Precision = "fp32"
    """In which they compute."""
    figures: Mapping[str, Collection[str]] = field(default_factory=dict)
    """The values of each task's metric that are needed (see `Objectives.figures`); others may be missing. Of a task
    that is not named, all are."""
    blocks: Mapping[str, Sequence[Iterable[Batch]]] = field(default_factory=dict)
    """Of a search that races: the images of every task, block by block (see `nasmvt.search.race`)."""


class Evaluator:
    """Evaluates subnets with the supernet's weights; the same in this process or a worker.

    The result is a function of (arch, task) alone: the same on the same machine and number of threads.

    Args:
        supernet: the trained weights.
        setting: how they are evaluated.

    Raises:
        UserError: if a metric has no such value.
    """

    def __init__(self, supernet: Supernet, setting: EvaluationSetting) -> None:
        self.supernet = supernet
        self.setting = setting
        self.device = torch.device(setting.device)
        self.unread = {name: supernet.tasks[name].unread(needed) for name, needed in setting.figures.items()}

    def __call__(self, arch: Arch, task: str, rung: int | None = None) -> dict[str, float]:
        """Return the metrics of one task in percent; given a rung, the first one on each of its blocks.

        Raises:
            UserError: if the search split of the task is empty.
        """
        setting = self.setting
        network = self.supernet.materialize(arch, setting.sharing, (task,)).task(task).to(self.device)
        if task in self.unread:
            network.strip(self.unread[task])
        config = self.supernet.tasks[task]
        size = config.size(self.supernet.space, arch)
        recalibrate(network, _placed(setting.recalibration[task], size), self.device, precision=setting.precision)

        def measured(images: Iterable[Batch]) -> dict[str, float]:
            return evaluate(network, _placed(images, size), config, self.device, setting.precision)

        if rung is None:
            return measured(setting.images[task])
        return {str(block): measured(setting.blocks[task][block])[config.primary] for block in RUNGS[rung]}


def _placed(images: Iterable[Batch], size: Size) -> Iterable[Batch]:
    """Return images placed for a size; batches that were made before have theirs."""
    return images.at(size) if isinstance(images, EvalSet) else images
