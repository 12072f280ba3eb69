"""Class attention with an auxiliary classifier of every token, and its training by token labels: LVT's classifier."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from nasmvt.data.types import DataInfo
from nasmvt.errors import UserError
from nasmvt.families.lvt_head import ClassAttentionHead
from nasmvt.heads.layers import in_float32
from nasmvt.heads.token_labels import Box, Mixing, dense_targets, smoothed, swapped, token_losses
from nasmvt.tasks.heads import HeadConfig, HeadParts, register_head

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]
Weight = Annotated[float, Field(ge=0.0)]


class ClassAttentionConfig(HeadConfig):
    """Classification head: a class token that reads the last map, and a classifier of its tokens."""

    reads_token_labels: ClassVar[bool] = True

    type: str = "class_attention"

    blocks: Count = 2
    """Number of blocks of class attention."""

    head_dim: Count = 32
    """Width of an attention head; divides the channels of the last map."""

    mlp_ratio: Positive = 4.0
    """Hidden width of the blocks' MLPs over the channels."""

    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Fraction of a target that is spread over all classes in the loss."""

    token_weight: Weight = 0.5
    """Weight of the tokens' loss; that of the class has 1."""

    mix_alpha: Weight = 1.0
    """Mix token: in training a box of every image is replaced by that of another image of the batch; the part that
    stays is drawn from Beta(alpha, alpha). 0 turns it off."""

    ground_truth: bool = False
    """With token labels: whether the class counts beside the teacher's opinion of the crop."""

    transposed_crops: bool = False
    """With token labels: whether rows and columns of the crops are exchanged in the label maps, an error of the code
    with which the published weights were trained."""


class TokenLabelHead(ClassAttentionHead):
    """Class attention that is trained on the class of an image, or on a map of what is seen where."""

    def __init__(self, width: int, classes: int, config: ClassAttentionConfig) -> None:
        heads = width // config.head_dim
        super().__init__(width, classes, num_heads=heads, mlp_ratio=config.mlp_ratio, blocks=config.blocks)
        self.config = config
        self.mixing = Mixing(config.mix_alpha)

    def losses(
        self, maps: Sequence[Tensor], targets: Any, sizes: Sequence[tuple[int, int]], box: Box | None = None
    ) -> dict[str, Tensor]:
        """Return `loss_class` and `loss_tokens`.

        Args:
            maps: the last is (B, C, H, W).
            targets: class indices (B,), shares (B, K), or a batch of token labels (see `nasmvt.data.token_labels`).
            sizes: of the images on the canvas.
            box: which cells of the last map were mixed.
        """
        logits, tokens = map(in_float32, self(maps))
        grid = (maps[-1].shape[2], maps[-1].shape[3])
        if box is not None:
            tokens = swapped(tokens.transpose(1, 2).unflatten(2, grid), box).flatten(2).transpose(1, 2)
        target = self._target(targets, logits.shape[1], grid)
        of_class, of_tokens = token_losses(logits, tokens, target, box, ground_truth=self.config.ground_truth)
        return {"loss_class": of_class, "loss_tokens": self.config.token_weight * of_tokens}

    def classify(self, maps: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Return logits (B, K) of the class token and, half as much, of the token that is surest of a class."""
        logits: Tensor = in_float32(self(maps))
        return logits

    def workload(self, maps: Sequence[Tensor]) -> None:
        """Compute the logits."""
        self(maps)

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters to which no weight decay applies."""
        return {"cls_token"}

    def _target(self, targets: Any, classes: int, grid: tuple[int, int]) -> Tensor:
        smoothing = self.config.label_smoothing
        if isinstance(targets, dict):
            return dense_targets(
                targets["maps"],
                targets["crops"],
                targets["labels"],
                classes=classes,
                grid=grid,
                smoothing=smoothing,
                transposed=self.config.transposed_crops,
            )
        return smoothed(F.one_hot(targets, classes).float() if targets.ndim == 1 else targets, smoothing)


@register_head("class_attention", kind="classification", config=ClassAttentionConfig)
def build(widths: Sequence[int], strides: Sequence[int], config: ClassAttentionConfig, info: DataInfo) -> HeadParts:
    """Build class attention on the last map.

    Raises:
        UserError: if `head_dim` doesn't divide its channels.
    """
    if widths[-1] % config.head_dim:
        raise UserError(
            f"'head_dim' of class attention must divide the channels of the last map, but {config.head_dim} doesn't "
            f"divide {widths[-1]}: change it"
        )
    return HeadParts(neck=nn.Identity(), head=TokenLabelHead(widths[-1], len(info.classes), config))
