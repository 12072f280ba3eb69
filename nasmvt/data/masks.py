"""COCO's segmentations as arrays."""

from typing import Any

import numpy as np

from nasmvt.errors import UserError


def is_segmentation(value: Any) -> bool:
    """Return whether an annotation's `segmentation` says anything: boxes-only data sets hold null or []."""
    if isinstance(value, dict):
        return bool(value.get("counts"))
    return isinstance(value, list) and any(value)


def fault(value: Any, size: tuple[int, int]) -> str | None:
    """Return what is wrong with a segmentation of an image of `size` (height, width), or None.

    A segmentation is a list of polygons [x0, y0, x1, y1, ...] of three or more points, or a mapping of
    `size` [height, width] and `counts` (run lengths as a list, or as COCO's compressed string).
    """
    if isinstance(value, dict):
        if value.get("size") != list(size):
            return f"a run-length mask of size {value.get('size')} on an image of size {list(size)}"
        return _fault_of_runs(value["counts"], size[0] * size[1])
    for polygon in value:
        if not _numbers(polygon) or len(polygon) < 6 or len(polygon) % 2:
            return f"the polygon {str(polygon)[:60]}, which is not a list of three or more points"
    return None


def _fault_of_runs(counts: Any, pixels: int) -> str | None:
    if isinstance(counts, str):
        return None  # known only once it is decoded
    if not _numbers(counts):
        return f"the run lengths {str(counts)[:60]}, which are neither a list of numbers nor a string"
    if sum(counts) != pixels or min(counts) < 0:
        return f"run lengths that add up to {sum(counts)} and not to {pixels} pixels"
    return None


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, (int, float)) for item in value)


def decode(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Draw a segmentation as a bool array (H, W).

    Args:
        segmentation: polygons or run lengths, see `fault`.
        size: height and width of the image.

    Raises:
        UserError: if faster-coco-eval, which draws it, is not installed.
        ValueError: if a compressed string does not fit the image.
    """
    try:
        from faster_coco_eval import mask as api
    except ImportError:
        raise UserError(
            "polygons and run-length masks are decoded by faster-coco-eval, which is not installed: "
            "run `pip install faster-coco-eval`"
        ) from None
    height, width = size
    if isinstance(segmentation, dict):
        compressed = isinstance(segmentation["counts"], str)
        runs = segmentation if compressed else api.frPyObjects(segmentation, height, width)
    else:
        runs = api.merge(api.frPyObjects(segmentation, height, width))
    return np.asarray(api.decode(runs)).astype(bool)
