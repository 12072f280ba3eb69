"""What one network can teach another about a batch, for distillation in place.

The largest network of a supernet teaches the others in every step, so that they learn from what it says and not from
labels alone ("Universally Slimmable Networks", arXiv:1903.05134, section 3.3; BigNAS, arXiv:2003.11142, section 3.1).

Shapes: B batch, K classes, C channels, H, W of a map.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from nasmvt.config import Config
from nasmvt.heads.sizes import Sizes

Weight = Annotated[float, Field(ge=0)]


class DistillationConfig(Config):
    """Distillation in place: in every step the largest arch teaches the others."""

    soft_labels: Weight = 1.0
    """Factor of the divergence from the teacher's class probabilities, for heads that give logits (classification,
    segmentation)."""
    temperature: float = Field(default=1.0, gt=0)
    """What the logits of both are divided by before they are compared; the divergence is multiplied by its square."""
    labels: Weight = 1.0
    """Factor of the losses against the labels of the data, for archs that learn soft labels; 0: soft labels alone
    (BigNAS)."""
    features: Weight = 1.0
    """Factor of the difference from the teacher's maps after the neck, for all other heads (detection, panoptic)."""


class Lesson(ABC):
    """What a network says about a batch, as far as another of the same task can learn it."""

    @abstractmethod
    def detached(self) -> Self:
        """Return it without gradients, as a teacher's."""

    @abstractmethod
    def taught(self, losses: Mapping[str, Tensor], teacher: Self, config: DistillationConfig) -> dict[str, Tensor]:
        """Return the losses of a network that says this, given those without a teacher, and what its teacher says.

        The added loss is a mean over the images.
        """


class Learned(NamedTuple):
    """What comes of a training batch."""

    losses: dict[str, Tensor]
    """Named scalars whose sum is the loss."""
    lesson: Lesson
    """What the network can teach."""


@dataclass(frozen=True)
class SoftLabels(Lesson):
    """Class probabilities of images or cells."""

    logits: Tensor
    """(B, K) or (B, K, H, W)."""
    sizes: Sizes
    """Of the images on the canvas: cells of the padding teach nothing."""

    def detached(self) -> "SoftLabels":
        """Return it without gradients."""
        return SoftLabels(self.logits.detach(), self.sizes)

    def taught(
        self, losses: Mapping[str, Tensor], teacher: "SoftLabels", config: DistillationConfig
    ) -> dict[str, Tensor]:
        """Add `loss_soft_labels`, the Kullback-Leibler divergence from the teacher's probabilities."""
        own, other = (
            (lesson.logits.float() / config.temperature).log_softmax(1).flatten(2)
            for lesson in (self._per_cell(), teacher._per_cell())
        )
        found_BN = F.kl_div(own, other, reduction="none", log_target=True).sum(1)
        cells_BN = _cells(self.sizes, self._per_cell().logits)
        mean = ((found_BN * cells_BN).sum(1) / cells_BN.sum(1)).mean()
        by_labels = {name: config.labels * loss for name, loss in losses.items()}
        return {**by_labels, "loss_soft_labels": config.soft_labels * config.temperature**2 * mean}

    def _per_cell(self) -> "SoftLabels":
        return self if self.logits.ndim == 4 else SoftLabels(self.logits[:, :, None, None], self.sizes)


@dataclass(frozen=True)
class Features(Lesson):
    """The maps that a head reads; they have the same shapes for all archs."""

    maps: Sequence[Tensor]
    """(B, C, H_i, W_i) each."""
    sizes: Sizes
    """Of the images on the canvas: cells of the padding teach nothing."""

    def detached(self) -> "Features":
        """Return it without gradients."""
        return Features([map_BCHW.detach() for map_BCHW in self.maps], self.sizes)

    def taught(
        self, losses: Mapping[str, Tensor], teacher: "Features", config: DistillationConfig
    ) -> dict[str, Tensor]:
        """Add `loss_features`: the squared difference over the teacher's square, of every map of an image, averaged.

        It is 0 for equal maps and 1 for maps of zeros, however large the features are.
        """
        levels = []
        for own, other in zip(self.maps, teacher.maps, strict=True):
            own_BCN, other_BCN, cells_BN = own.float().flatten(2), other.float().flatten(2), _cells(self.sizes, own)
            away_B = ((own_BCN - other_BCN).square().sum(1) * cells_BN).sum(1)
            whole_B = (other_BCN.square().sum(1) * cells_BN).sum(1)
            levels.append((away_B / whole_B.clamp(min=torch.finfo(torch.float32).tiny)).mean())
        return {**losses, "loss_features": config.features * torch.stack(levels).mean()}


def _cells(sizes: Sizes, map_BCHW: Tensor) -> Tensor:
    """Return for each cell (B, H * W) of a map 1, or 0 where its centre is padding; the first cell always counts."""
    sides = []
    for dim, (side, cells) in enumerate(zip(sizes.canvas, map_BCHW.shape[2:], strict=True)):
        centres = (torch.arange(cells, device=map_BCHW.device) + 0.5) * (side / cells)
        ends = torch.tensor([size[dim] for size in sizes], device=map_BCHW.device)
        inside = centres < ends[:, None]
        inside[:, 0] = True
        sides.append(inside)
    return (sides[0][:, :, None] & sides[1][:, None]).flatten(1).float()
