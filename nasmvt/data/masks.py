"""Masks of objects: polygons and run lengths as COCO writes them, checked, drawn and encoded.

Shapes: n objects, H, W height and width of the image.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nasmvt.data.orientation import UPRIGHT, turn_array, upright_size
from nasmvt.errors import UserError

RunLengths = dict[str, Any]
"""`{"size": [H, W], "counts": compressed string, or list of run lengths}`."""
Part = list[Any] | RunLengths | tuple[float, float, float, float] | np.ndarray
"""How the mask of one object is stored."""


def encode_masks(masks: torch.Tensor | np.ndarray) -> list[RunLengths]:
    """Return each of the bool masks (n, H, W) as COCO's compressed run lengths."""
    if not len(masks):
        return []
    dense = masks.cpu().numpy() if isinstance(masks, torch.Tensor) else masks
    columns_first = np.asfortranarray(dense.transpose(1, 2, 0).astype(np.uint8))
    return [_as_text(runs) for runs in _library().encode(columns_first)]


class ObjectMasks:
    """The masks of the objects of one image, in the form of their source.

    They are drawn or encoded on demand: a photograph with thirty objects would fill hundreds of
    megabytes as dense masks, and a few kilobytes as polygons.

    Args:
        size: height H and width W in pixels of the image that the parts refer to.
        parts: one per object: polygons or run lengths as COCO writes them, a box (x0, y0, x1, y1) that the object
            fills, or a bool array (H, W).
        source: the name of the image's annotations in errors.
        orientation: EXIF orientation of that image; the masks are turned upright with it.
    """

    def __init__(
        self,
        size: tuple[int, int],
        parts: Sequence[Part],
        source: str = "the masks",
        orientation: int = UPRIGHT,
    ) -> None:
        self.size = upright_size(size, orientation)
        """Height and width of the masks."""
        self._stored = size
        self._parts = list(parts)
        self._source = source
        self._orientation = orientation
        self._encoded: list[RunLengths] | None = None

    @classmethod
    def of(cls, masks: torch.Tensor) -> "ObjectMasks":
        """Wrap dense masks (n, H, W) bool."""
        return cls((masks.shape[1], masks.shape[2]), list(masks.cpu().numpy()))

    def __len__(self) -> int:
        """Return the number n of objects."""
        return len(self._parts)

    def __getitem__(self, kept: torch.Tensor) -> "ObjectMasks":
        """Return the masks of the objects that are true in `kept` (n,) bool."""
        parts = list(itertools.compress(self._parts, kept.tolist()))
        chosen = ObjectMasks(self._stored, parts, self._source, self._orientation)
        if self._encoded is not None:
            chosen._encoded = list(itertools.compress(self._encoded, kept.tolist()))
        return chosen

    def dense(self) -> torch.Tensor:
        """Draw the masks, bool (n, H, W).

        Raises:
            UserError: if run lengths do not fit the image, or polygons and run lengths need
                faster-coco-eval, which is not installed.
        """
        return torch.from_numpy(self.numpy())

    def numpy(self) -> np.ndarray:
        """Draw the masks as an array, bool (n, H, W), see `dense`."""
        masks = np.zeros((len(self), *self.size), dtype=bool)
        for mask, part in zip(masks, self._parts, strict=True):
            mask[:] = turn_array(self._draw(part), self._orientation)
        return masks

    def rles(self) -> list[RunLengths]:
        """Return the masks as COCO's compressed run lengths; encoded once and cached.

        Raises:
            UserError: as `dense`.
        """
        if self._encoded is None:
            self._encoded = [self._encode(part) for part in self._parts]
        return self._encoded

    def areas(self) -> list[int]:
        """Return the number of pixels of each mask."""
        return [int(_library().area(runs)) for runs in self.rles()]

    def _draw(self, part: Part) -> np.ndarray:
        """Draw a part as a bool array of the stored size."""
        if isinstance(part, np.ndarray):
            return part
        if isinstance(part, tuple):
            mask = np.zeros(self._stored, dtype=bool)
            x0, y0, x1, y1 = part
            mask[int(y0) : math.ceil(y1), int(x0) : math.ceil(x1)] = True
            return mask
        try:
            return np.asarray(_library().decode(self._runs(part))).astype(bool)
        except ValueError as error:
            raise UserError(f"{self._source}: a segmentation can't be decoded ({error}): fix or remove it") from None

    def _encode(self, part: Part) -> RunLengths:
        if self._orientation == UPRIGHT and isinstance(part, (list, dict)):
            return self._runs(part)
        return encode_masks(turn_array(self._draw(part), self._orientation)[None])[0]

    def _runs(self, part: list[Any] | RunLengths) -> RunLengths:
        """Return polygons or run lengths as compressed run lengths of the stored size."""
        library = _library()
        if isinstance(part, list):
            return _as_text(library.merge(library.frPyObjects(part, *self._stored)))
        return part if isinstance(part["counts"], str) else _as_text(library.frPyObjects(part, *self._stored))


def _library() -> Any:
    try:
        from faster_coco_eval import mask
    except ImportError:
        raise UserError(
            "polygons and run-length masks need faster-coco-eval, which is not installed: "
            "run `pip install faster-coco-eval`"
        ) from None
    return mask


def _as_text(runs: RunLengths) -> RunLengths:
    counts = runs["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {"size": [int(side) for side in runs["size"]], "counts": text}
