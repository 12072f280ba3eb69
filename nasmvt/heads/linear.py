"""Classification head: the mean over the tokens of the last map, then a linear layer or an MLP.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from nasmvt.heads.layers import in_float32


class LinearHead(nn.Module):
    """Mean over the last map, dropout, linear layer; or in its place the MLP of ScalableViT's released classifier.

    Args:
        width: channels C of the last map.
        classes: number K of classes.
        dropout: probability of dropping a pooled channel while training.
        label_smoothing: fraction of a label that is spread over all classes in the loss.
        hidden: hidden width of the MLP; None: a linear layer.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, classes) if hidden is None else _mlp(width, hidden, classes)
        self.fc.apply(_init_weights)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn maps, of which the last is (B, C, H, W), into logits (B, K)."""
        return in_float32(self.fc(self.dropout(maps[-1].mean(dim=(2, 3)))))

    def losses(self, maps: Sequence[Tensor], targets: Tensor, sizes: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        """Return `loss_class` of maps, see `criterion`."""
        return self.criterion(self.classify(maps, sizes), targets)

    def criterion(self, logits_BK: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return `loss_class`, the cross-entropy of logits with smoothed labels.

        Targets are class indices (B,) int64, or class proportions (B, K) of mixed images. Smoothing after mixing
        equals mixing after smoothing, which timm's Mixup does.
        """
        return {"loss_class": F.cross_entropy(logits_BK, targets, label_smoothing=self.label_smoothing)}

    def classify(self, maps: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Return logits (B, K)."""
        logits_BK: Tensor = self(maps)
        return logits_BK

    def workload(self, maps: Sequence[Tensor]) -> None:
        """Compute the logits."""
        self(maps)


def _mlp(width: int, hidden: int, classes: int) -> nn.Sequential:
    layers = {
        "fc1": nn.Linear(width, hidden),
        "norm": nn.LayerNorm(hidden, eps=1e-6),
        "act": nn.GELU(),
        "fc2": nn.Linear(hidden, classes),
    }
    return nn.Sequential(OrderedDict(layers))


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
