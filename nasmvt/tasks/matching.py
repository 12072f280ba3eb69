"""Detections of fixed places per image, and whether two sets of detections of the same image are the same.

Shapes: B images, D places, n, m detections, M side of a mask.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def with_count(places: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add to what a head's `detect_static` returns `count` (B,) int64, the number of detections of each image."""
    return {**places, "count": (places["scores"] > 0).sum(dim=1)}


def counted(outputs: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Cut places (B, D, ...) to the detections of each image, whose number is `count` (B,)."""
    places = {name: tensor for name, tensor in outputs.items() if name != "count"}
    return [
        {name: tensor[image, :count] for name, tensor in places.items()}
        for image, count in enumerate(outputs["count"].tolist())
    ]


def disagreement(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], side: float) -> float:
    """Return the largest difference of matched detections, or infinity where one has no counterpart.

    Their order is of no influence. A difference is that of the scores, of the boxes as a share of the image's side, and
    of the masks' probabilities, whichever is the largest.

    Args:
        ours: `boxes` (n, 4), `labels` (n,), `scores` (n,) and maybe `masks` (n, M, M).
        theirs: the same of m detections.
        side: the longer side of the image in pixels.
    """
    if len(ours["scores"]) != len(theirs["scores"]):
        return math.inf
    if not len(ours["scores"]):
        return 0.0
    cost_nn = (ours["scores"][:, None] - theirs["scores"]).abs()
    cost_nn = cost_nn.maximum((ours["boxes"][:, None] - theirs["boxes"]).abs().amax(dim=2) / side)
    cost_nn = cost_nn.where(ours["labels"][:, None] == theirs["labels"], math.inf)
    if "masks" in ours:
        masks, others = (found["masks"].flatten(1) for found in (ours, theirs))
        cost_nn = cost_nn.maximum(torch.cdist(masks, others, p=math.inf))
    worst = 0.0
    for row in range(len(cost_nn)):
        cost, column = cost_nn[row].min(dim=0)
        worst = max(worst, float(cost))
        cost_nn[:, column] = math.inf
    return worst
