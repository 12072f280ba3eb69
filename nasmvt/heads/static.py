"""What a detector of static shapes is made of: nothing here has a shape that depends on values.

Exporters, compilers and other runtimes need that. Where the usual form of a detector drops something, the score of
what is left out is set to 0, and a fixed number of places is filled with the best of the rest.

Shapes: B images, G groups, N candidates of a group, n of them chosen, C channels, S side of a pooled region.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, nms, roi_align


@torch.library.custom_op("nasmvt::survivors", mutates_args=())
def survivors(boxes_GN4: Tensor, scores_GN: Tensor, overlap: float) -> Tensor:
    """Return which candidates survive non-maximum suppression inside their group: bool (G, N).

    An operator of its own, so that an exporter can put its runtime's suppression in its place; in terms of torchvision
    it is `survivors_by_torchvision`.

    Args:
        boxes_GN4: xyxy.
        scores_GN: of each candidate; one of score 0 or less is left out.
        overlap: IoU above which the weaker of two candidates is dropped.
    """
    return survivors_by_torchvision(boxes_GN4, scores_GN, overlap)


@survivors.register_fake
def _(boxes_GN4: Tensor, scores_GN: Tensor, overlap: float) -> Tensor:
    return scores_GN.new_empty(scores_GN.shape, dtype=torch.bool)


def survivors_by_torchvision(boxes_GN4: Tensor, scores_GN: Tensor, overlap: float) -> Tensor:
    """Do what `survivors` says, with torchvision's operator alone.

    Groups are moved apart so that boxes of different ones do not overlap; in double precision, in which this changes no
    overlap that single precision can tell.
    """
    groups, count = scores_GN.shape
    scores = scores_GN.reshape(-1)
    step = boxes_GN4.max().double() - boxes_GN4.min().double() + 1
    shift_G = torch.arange(groups, device=scores.device) * step
    boxes = (boxes_GN4.double() + shift_G[:, None, None]).reshape(-1, 4)
    candidates = torch.nonzero(scores > 0)[:, 0]
    kept = candidates[nms(boxes[candidates], scores[candidates].double(), overlap)]
    survives = torch.zeros_like(scores, dtype=torch.bool)
    return survives.index_put((kept,), torch.ones_like(kept, dtype=torch.bool)).view(groups, count)


def best(scores_BN: Tensor, most: int, *values: Tensor) -> tuple[Tensor, ...]:
    """Return the highest scores (B, n) of each image, best first, and the `values` (B, N, ...) of the same candidates.

    n is `most`, or N where that is less. While N is left open in tracing, n is `most`: places are filled with zeros,
    their scores with minus infinity.
    """
    count = scores_BN.shape[1]
    if isinstance(count, int):
        most = min(most, count)
    else:
        scores_BN = F.pad(scores_BN, (0, most), value=-torch.inf)
        values = tuple(F.pad(value, (0, 0) * (value.ndim - 2) + (0, most)) for value in values)
    scores, places = scores_BN.topk(most, dim=1)
    return scores, *(_at(value, places) for value in values)


def _at(values: Tensor, places_Bn: Tensor) -> Tensor:
    """Return (B, n, ...) of `values` (B, N, ...)."""
    if values.ndim == 2:
        return values.gather(1, places_Bn)
    return values.gather(1, places_Bn[:, :, None].expand(-1, -1, values.shape[2]))


def levels(values: Tensor, counts: Sequence[int]) -> Iterator[Tensor]:
    """Yield the levels (B, n, ...) of values (B, N, ...), which lie one after the other, `counts` of each."""
    start = 0
    for count in counts:
        yield values.narrow(1, start, count)
        start += count


def clip(boxes: Tensor, sizes_B2: Tensor) -> Tensor:
    """Clip boxes (B, ..., 4) xyxy to the heights and widths of their images."""
    limits = sizes_B2.flip(1).repeat(1, 2).to(boxes)  # width, height, width, height
    return boxes.clamp(min=0).minimum(limits.view(-1, *[1] * (boxes.ndim - 2), 4))


def large(boxes: Tensor, least: float) -> Tensor:
    """Return which boxes (..., 4) have sides of `least` pixels at least: bool (...)."""
    return (boxes[..., 2:] - boxes[..., :2] >= least).all(dim=-1)


def pool(pooling: MultiScaleRoIAlign, maps: Sequence[Tensor], boxes_BN4: Tensor) -> Tensor:
    """Pool regions (B * N, C, S, S), each from the level of its size.

    Every region is pooled from every level, as a tiny one where it does not belong: of fixed cost.

    Args:
        pooling: says levels, size and alignment (see `nasmvt.heads.roi.roi_align`).
        maps: the pyramid.
        boxes_BN4: xyxy in pixels of the canvas.
    """
    batch, count = boxes_BN4.shape[:2]
    image = torch.arange(batch, device=boxes_BN4.device).to(boxes_BN4)[:, None, None].expand(-1, count, 1)
    regions = torch.cat((image, boxes_BN4), dim=2).flatten(0, 1)
    levels = pooling.map_levels([regions[:, 1:]])
    nowhere = regions * regions.new_tensor([1, 0, 0, 0, 0])
    parts = []
    for level, (scale, map_BCHW) in enumerate(zip(pooling.scales, maps, strict=False)):
        here = (levels == level)[:, None]
        pooled = roi_align(
            map_BCHW,
            torch.where(here, regions, nowhere),
            pooling.output_size,
            scale,
            pooling.sampling_ratio,
            pooling.aligned,
        )
        parts.append(torch.where(here[:, :, None, None], pooled, 0))
    return torch.stack(parts).sum(dim=0)
