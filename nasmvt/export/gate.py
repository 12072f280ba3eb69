"""Files for other runtimes are kept only if they compute what PyTorch computes."""

from collections.abc import Iterable

from nasmvt.data.types import Batch
from nasmvt.errors import UserError
from nasmvt.export.runtimes import RuntimeNetwork

TOLERANCE = 1e-4
"""Largest difference that float32 on another runtime is granted (see `TaskNetwork.disagreement`)."""


def worst_disagreement(served: RuntimeNetwork, batches: Iterable[Batch]) -> float:
    """Return by how much a runtime differs from PyTorch at most, on whole batches and on the first image of each."""
    worst = 0.0
    for batch in batches:
        for count in {1, len(batch.images)}:
            images, infos = batch.images[:count], batch.infos[:count]
            worst = max(worst, served.network.disagreement(served.outputs(images, infos), images, infos))
    return worst


def check(served: RuntimeNetwork, batches: Iterable[Batch], what: str) -> float:
    """Return the same, if it is within the tolerance.

    Raises:
        UserError: if it is not; names `what`.
    """
    worst = worst_disagreement(served, batches)
    if not worst <= TOLERANCE:
        raise UserError(
            f"{what} must compute what PyTorch computes, but differs by {worst:.1e} of the largest value (at most "
            f"{TOLERANCE:.0e}): it is not written; export from another version of torch, or without this runtime"
        )
    return worst
