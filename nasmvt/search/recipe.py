"""What is sent to a worker: everything that an evaluator is rebuilt from."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nasmvt.data.types import Batch
from nasmvt.precision import Precision
from nasmvt.search.evaluator import Evaluator
from nasmvt.search.packing import pack, unpack
from nasmvt.space import SearchSpace, Sharing
from nasmvt.supernet import Supernet, SupernetConfig
from nasmvt.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Space, tasks, weights, and the locations of images; picklable, the weights as plain arrays."""

    space: SearchSpace
    tasks: Mapping[str, Task]
    config: SupernetConfig
    sharing: Sharing
    """Which layers the tasks share."""
    weights: dict[str, Any]
    """The supernet's state dict, packed."""
    images: Mapping[str, Iterable[Batch]]
    """The search split of every task; a worker reads its images itself."""
    recalibration: Mapping[str, Iterable[Batch]]
    """Training images of every task."""
    device: str
    """Device type of a worker's networks: `cpu` or `cuda`."""
    precision: Precision
    """In which they compute."""
    figures: Mapping[str, Collection[str]] | None = None
    """The values of each task's metric that are needed; None: all."""
    blocks: Mapping[str, Sequence[Iterable[Batch]]] | None = None
    """Of a search that races: the search split of every task, block by block."""

    @classmethod
    def of(
        cls,
        supernet: Supernet,
        sharing: Sharing,
        images: Mapping[str, Iterable[Batch]],
        recalibration: Mapping[str, Iterable[Batch]],
        device: torch.device | str = "cpu",
        precision: Precision = "fp32",
        figures: Mapping[str, Collection[str]] | None = None,
        blocks: Mapping[str, Sequence[Iterable[Batch]]] | None = None,
    ) -> "Recipe":
        """Return the recipe of an evaluator; arguments are as for `Evaluator`. Ray numbers a worker's GPUs from 0."""
        return cls(
            space=supernet.space,
            tasks=supernet.tasks,
            config=supernet.config,
            sharing=sharing,
            weights=pack(dict(supernet.state_dict())),
            images=dict(images),
            recalibration=dict(recalibration),
            device=torch.device(device).type,
            precision=precision,
            figures=figures,
            blocks=blocks,
        )

    def __call__(self) -> Evaluator:
        """Build the evaluator; on the CPU its weights stay in the recipe's memory."""
        with torch.device("meta"):
            supernet = Supernet(self.space, self.tasks, self.config)
        once = {id(packed): unpack(packed).to(self.device) for packed in self.weights.values()}
        supernet.load_state_dict({name: once[id(packed)] for name, packed in self.weights.items()}, assign=True)
        return Evaluator(
            supernet,
            self.sharing,
            self.images,
            self.recalibration,
            self.device,
            self.precision,
            self.figures,
            self.blocks,
        )
