"""Classification head: the mean over the tokens of the last map, then a linear layer.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from collections.abc import Sequence

from torch import Tensor, nn


class LinearHead(nn.Module):
    """Mean over the last map, dropout, linear layer.

    Args:
        width: channels C of the last map.
        classes: number K of classes.
        dropout: probability of dropping a pooled channel while training.
    """

    def __init__(self, width: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.fc.weight, std=0.02)
        nn.init.zeros_(self.fc.bias)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn maps, of which the last is (B, C, H, W), into logits (B, K)."""
        logits_BK: Tensor = self.fc(self.dropout(maps[-1].mean(dim=(2, 3))))
        return logits_BK
