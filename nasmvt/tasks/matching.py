"""Whether two sets of detections of the same image are the same.

Shapes: n, m detections, M side of a mask.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor


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
