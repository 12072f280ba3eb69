"""What is sent to a worker: everything that an evaluator is rebuilt from."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from nasmvt.search.evaluator import EvaluationSetting, Evaluator
from nasmvt.search.packing import pack, unpack
from nasmvt.space import SearchSpace
from nasmvt.supernet import Supernet, SupernetConfig
from nasmvt.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Space, tasks, weights, and how they are evaluated; picklable, the weights as plain arrays."""

    space: SearchSpace
    tasks: Mapping[str, Task]
    config: SupernetConfig
    weights: dict[str, Any]
    """The supernet's state dict, packed."""
    setting: EvaluationSetting
    """Its device is a kind: Ray numbers a worker's GPUs from 0."""

    @classmethod
    def of(cls, supernet: Supernet, setting: EvaluationSetting) -> "Recipe":
        """Return the recipe of an evaluator."""
        return cls(
            space=supernet.space,
            tasks=supernet.tasks,
            config=supernet.config,
            weights=pack(dict(supernet.state_dict())),
            setting=replace(setting, device=torch.device(setting.device).type),
        )

    def __call__(self) -> Evaluator:
        """Build the evaluator; on the CPU its weights stay in the recipe's memory."""
        with torch.device("meta"):
            supernet = Supernet(self.space, self.tasks, self.config)
        device = self.setting.device
        once = {id(packed): unpack(packed).to(device) for packed in self.weights.values()}
        supernet.load_state_dict({name: once[id(packed)] for name, packed in self.weights.items()}, assign=True)
        return Evaluator(supernet, self.setting)
