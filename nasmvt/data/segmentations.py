"""COCO's segmentations: polygons and run lengths, checked before they are passed to a C library."""

import msgspec
import numpy as np

from nasmvt.data.values import shown

_FARTHEST = 10
"""How far a corner may lie outside, in image sides; drawing a polygon takes memory in proportion to its length."""


class _Runs(msgspec.Struct):
    counts: str | list[float] = ""
    size: list[float] = []


_DECODER = msgspec.json.Decoder(list[list[float]] | _Runs | None)


def has_segmentation(text: bytes | msgspec.Raw, size: tuple[int, int]) -> bool:
    """Check the `segmentation` of an annotation; return whether it is not empty.

    Data sets with boxes only contain null, [], [[]] or run lengths without counts.

    Args:
        text: JSON: a list of polygons [x0, y0, x1, y1, ...] of three or more points, or a mapping of `size`
            [height, width] and `counts` (run lengths as a list, or as COCO's compressed string).
        size: height and width of the image.

    Raises:
        ValueError: if it is something else, does not fit the image, or lies far outside.
    """
    try:
        value = _DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        content = bytes(text).decode("utf-8", "replace")
        raise _refusal(f"{shown(content)}, which is neither a list of polygons nor run lengths ({error})") from None
    if isinstance(value, _Runs):
        return _check_runs(value, size)
    if not value or not any(value):
        return False
    limit = _FARTHEST * max(size)
    for polygon in value:
        if len(polygon) < 6 or len(polygon) % 2:
            raise _refusal(f"the polygon {shown(polygon)}, which is not a list of three or more points")
        if max(polygon) > limit or min(polygon) < -limit:
            farthest = max(polygon, key=abs)
            raise _refusal(
                f"a polygon with the coordinate {farthest:g}, far outside the image of {size[1]}x{size[0]} pixels"
            )
    return True


def _check_runs(runs: _Runs, size: tuple[int, int]) -> bool:
    if not runs.counts:
        return False
    if runs.size != list(size):
        given = [int(side) if side == int(side) else side for side in runs.size]
        raise _refusal(f"a run-length mask of size {given} on an image of size {list(size)}")
    counts = decompress(runs.counts) if isinstance(runs.counts, str) else np.array(runs.counts)
    if counts is None:
        raise _refusal(f"the compressed run lengths {shown(runs.counts)}, which can't be decoded")
    pixels = size[0] * size[1]
    if counts.min() < 0 or counts.sum() != pixels or (counts != np.floor(counts)).any():
        raise _refusal(f"run lengths that add up to {counts.sum():g} and not to {pixels} pixels")
    return True


def decompress(text: str) -> np.ndarray | None:
    """Return the run lengths (int64) that COCO's compressed string stands for, or None if it is invalid.

    Each character holds five bits, lowest first, and a flag (32) that more follow; the highest bit of the last one is
    the sign. From the fourth number on, the difference to the last but one is stored.
    """
    codes = np.frombuffer(text.encode("utf-8", "replace"), dtype=np.uint8).astype(np.int64) - 48
    if codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    last = (codes & 32) == 0
    group = np.concatenate([[0], last.cumsum()[:-1]])
    first = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    shift = 5 * (np.arange(len(codes)) - first[group])
    if shift.max() > 30:
        return None
    values = np.bincount(group, weights=(codes & 31) << shift).astype(np.int64)
    negative = (codes[last] & 16) != 0
    values -= negative.astype(np.int64) << (shift[last] + 5)
    # Cumulative sums over the even and the odd numbers undo the differences.
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values


def _refusal(wrong: str) -> ValueError:
    return ValueError(f"{wrong}: fix or remove its segmentation")
