"""Something small to train that is neither supernet nor model: two tasks, one linear layer each, one in common."""

import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import nn

from nasmvt.data.loader import WHOLE, Parts
from nasmvt.data.types import Batch
from nasmvt.heads.sizes import Sizes
from nasmvt.space import Arch
from nasmvt.tasks.lessons import Features, Learned
from nasmvt.tasks.trainable import Trained
from tests.conftest import make_tasks


class Toy(nn.Module):
    """Implements `Trainable`."""

    def __init__(self, space) -> None:
        super().__init__()
        self.space = space
        self.frozen_norms = ()
        self.tasks = {name: task for name, task in make_tasks().items() if name != "det"}
        self.common = nn.Linear(4, 4)
        self.own = nn.ModuleDict({name: nn.Linear(4, 1) for name in self.tasks})

    def draw(self, rng) -> Arch:
        return self.space.sample(rng)

    def forward(self, arch: Arch, task: str, batch: Batch) -> dict[str, torch.Tensor]:
        out = self.own[task](torch.tanh(self.common(batch.images)))
        return {"square": (out - batch.targets).square().mean(), "size": 0.01 * out.abs().mean()}

    def network_for_step(self, arch: Arch, task: str) -> "ToyNetwork":
        return ToyNetwork(self, arch, task)

    def probes(self, seed: int):
        return iter(())

    def trained(self) -> Iterator[Trained]:
        for name, parameter in self.named_parameters():
            yield Trained(name, parameter, decays=parameter.ndim > 1)


class ToyNetwork(NamedTuple):
    toy: Toy
    arch: Arch
    task: str

    trains_channels_last = False

    def laid_out(self, channels_last: bool) -> AbstractContextManager[None]:
        return nullcontext()

    def learn(self, images, targets, infos) -> Learned:
        losses = self.toy(self.arch, self.task, Batch(images=images, targets=targets, infos=infos))
        return Learned(losses, Features([], Sizes([], (1, 1))))


class ToyLoader:
    """Batches that are a function of the step."""

    SIZE = 4

    def batches(self, start: int = 0, parts: Parts = WHOLE, sizes: object = None) -> Iterator[Batch]:
        for step in itertools.count(start):
            generator = torch.Generator().manual_seed(step)
            images = torch.rand(self.SIZE, 4, generator=generator)
            for part in parts.wanted:
                slots = parts.slots(part, self.SIZE)
                yield Batch(images=images[slots], targets=torch.ones(len(slots), 1), infos=[])
