"""Token labelling ("All tokens matter", NeurIPS 2021) as LVT trains its classifier: targets, mix token, losses.

Shapes: B batch, K classes, k classes that a label map stores per cell, H, W cells of a label map, h, w cells of the
last map, N = h * w tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

Box = tuple[int, int, int, int]
"""First row and column of a box of cells, and those after its last."""


def smoothed(target: Tensor, smoothing: float) -> Tensor:
    """Spread a fraction of a target (B, K, ...) over all classes."""
    return target * (1 - smoothing) + smoothing / target.shape[1]


def mixed(target: Tensor, share: float) -> Tensor:
    """Mix a target (B, ...), of which a share remains, with that of the batch in reversed order."""
    return share * target + (1 - share) * target.flip(0)


def dense_targets(
    maps: Tensor,
    crops: Tensor,
    labels: Tensor,
    *,
    classes: int,
    grid: tuple[int, int] | None,
    smoothing: float,
    transposed: bool = False,
) -> Tensor:
    """Return the targets (B, K, 2 + N) of label maps; column 0 is the class, 1 the crop as a whole, the others tokens.

    As in the released code, smoothing makes the sum over the classes 1 in column 0, but 1 + `smoothing` / K elsewhere.

    Args:
        maps: (B, 2, k, H, W), the logits of the k likeliest classes of every cell, and which classes these are.
        crops: (B, 4), top, left, height and width of the part that the network sees, in fractions of the image.
        labels: class indices (B,).
        classes: number K of classes; those that a map doesn't store have a logit of 0.
        grid: (h, w); None: no columns for tokens.
        smoothing: fraction of a target that is spread over all classes.
        transposed: whether rows and columns of the crops are exchanged, as in the released code.
    """
    logits, stored = maps[:, 0].float(), maps[:, 1].long()
    height, width = maps.shape[-2:]
    dense = logits.new_zeros(len(maps), classes, height, width).scatter_(1, stored, logits)
    top, left, tall, wide = crops.float().unbind(1)
    if transposed:
        boxes = torch.stack((top, left, top + tall, left + wide), dim=1) * width
    else:
        boxes = torch.stack((left * width, top * height, (left + wide) * width, (top + tall) * height), dim=1)
    regions = list((boxes - 0.5).split(1))
    columns = [smoothed(F.one_hot(labels.long(), classes).to(dense.dtype), smoothing)[..., None]]
    off = smoothing / classes
    for size in ((1, 1), grid):
        if size is not None:
            cells = roi_align(dense, regions, size).softmax(dim=1).flatten(2)
            columns.append(cells * (1 - smoothing + off) + off)
    return torch.cat(columns, dim=2)


class MixToken:
    """Replaces a random box of cells of every image by that of the batch in reversed order.

    Args:
        stride: pixels of a cell of the last map, the unit of the box.
        alpha: the part of the cells that stays is drawn from Beta(alpha, alpha).
        box: the box, if it isn't drawn.
    """

    def __init__(self, stride: int, alpha: float = 1.0, box: Box | None = None) -> None:
        self._stride = stride
        self._alpha = alpha
        self.box = box
        """What was replaced."""

    def __call__(self, cells: Tensor, stride: int) -> Tensor:
        """Mix a map (B, C, H', W') whose cells are `stride` pixels wide."""
        scale = self._stride // stride
        if self.box is None:
            self.box = self._draw(cells.shape[2] // scale, cells.shape[3] // scale)
        return swapped(cells, [edge * scale for edge in self.box])

    def _draw(self, height: int, width: int) -> Box:
        share = float(torch.distributions.Beta(self._alpha, self._alpha).sample())
        edges = []
        for side in (height, width):
            half = int(side * (1 - share) ** 0.5) // 2
            centre = int(torch.randint(side, (1,)))
            edges.append((max(centre - half, 0), min(centre + half, side)))
        (top, bottom), (left, right) = edges
        return top, left, bottom, right


class Mixing(nn.Module):
    """Says what mixes the images of a batch; a module, so that it is off where a network is evaluated or measured.

    Args:
        alpha: the part of the cells that stays is drawn from Beta(alpha, alpha); 0: nothing is mixed.
    """

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, stride: int) -> MixToken | None:
        """Return what mixes the images of a training step, for a last map of a stride; None: nothing does."""
        return MixToken(stride, self.alpha) if self.training and self.alpha else None


def swapped(cells: Tensor, box: list[int] | Box) -> Tensor:
    """Replace a box (top, left, bottom, right) of a map (B, C, H', W') by that of the batch in reversed order."""
    top, left, bottom, right = box
    result = cells.clone()
    result[:, :, top:bottom, left:right] = cells.flip(0)[:, :, top:bottom, left:right]
    return result


def token_losses(
    logits: Tensor, tokens: Tensor, target: Tensor, box: Box | None, *, ground_truth: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the cross-entropies of the class and, averaged over the tokens, of the tokens.

    Args:
        logits: (B, K), of images of which a box was mixed.
        tokens: (B, N, K), each of what is seen at its place: `swapped` back.
        target: (B, K, 2 + N) as of `dense_targets`, or (B, K) for the class and for every token.
        box: what was mixed, in cells; None: nothing.
        ground_truth: whether the target of the class contains column 0, by a tenth where column 1 says otherwise and
            by half where it agrees.
    """
    if target.ndim == 2:
        of_class, of_tokens = target, target.unsqueeze(1).expand_as(tokens)
    else:
        truth, of_class, of_tokens = target[..., 0], target[..., 1], target[..., 2:].transpose(1, 2)
        if ground_truth:
            agrees = truth.argmax(dim=1, keepdim=True) == of_class.argmax(dim=1, keepdim=True)
            share = torch.where(agrees, 0.5, 0.9)
            of_class = share * of_class + (1 - share) * truth
    if box is not None:
        area = (box[2] - box[0]) * (box[3] - box[1])
        of_class = mixed(of_class, 1 - area / tokens.shape[1])
    return F.cross_entropy(logits, of_class), F.cross_entropy(tokens.flatten(0, 1), of_tokens.flatten(0, 1))
