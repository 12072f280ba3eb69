"""Token labels: what a teacher saw in each part of an image, read from files and moved with the image.

A file holds, for every cell of a map that is taken to cover the image, the logits of the likeliest classes and which
these are, float16 (2, k, H, W), as "All tokens matter" (NeurIPS 2021) published them for ImageNet.

Shapes: k classes that are stored per cell, H, W cells of a label map.
"""

import pickle
import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import functional as F

from nasmvt.data.config import DataConfig
from nasmvt.data.folders import scan, some
from nasmvt.data.targets import Placed
from nasmvt.data.timm_transform import apply, resized_crop, timm_stages
from nasmvt.data.types import ImageInfo, Sample
from nasmvt.errors import UserError

_MOVES = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
"""Beginnings of the names of those of timm's operations that move the contents of an image."""


class TokenLabel(NamedTuple):
    """The target of one training image."""

    label: int
    """Its class."""
    map: torch.Tensor
    """(2, k, H, W) float16: logits, and the indices of their classes."""
    crop: tuple[float, float, float, float]
    """Top, left, height and width of the part of the image that was cut out, in fractions."""


def collate_labels(targets: Sequence[TokenLabel]) -> dict[str, torch.Tensor]:
    """Return `labels` (B,) int64, `maps` (B, 2, k, H, W) float16 and `crops` (B, 4) float32 of a batch.

    Raises:
        UserError: if maps have different sizes.
    """
    shapes = sorted({str(tuple(target.map.shape)) for target in targets})
    if len(shapes) > 1:
        raise UserError(
            f"the files of 'token_labels' must hold maps of one size, but hold {some(shapes)}: convert them"
        )
    return {
        "labels": torch.tensor([target.label for target in targets], dtype=torch.int64),
        "maps": torch.stack([target.map for target in targets]),
        "crops": torch.tensor([target.crop for target in targets]),
    }


def label_file(image: str) -> str:
    """Return the name of an image's file in the folder of token labels: its class folder, and its name up to a dot."""
    path = PurePath(image)
    return f"{path.parent.name}/{path.name.partition('.')[0]}.pt"


def check_files(root: Path, images: Iterable[str]) -> None:
    """Refuse training images without a file of token labels; `images` are their names, with their class folders.

    Raises:
        UserError: naming some.
    """
    wanted = {label_file(image) for image in images}
    folders = {name.partition("/")[0] for name in wanted}
    present = {f"{name}/{entry.name}" for name in folders if (root / name).is_dir() for entry in scan(root / name)}
    if missing := sorted(wanted - present):
        raise UserError(
            f"every training image needs a file of token labels in {root}, but {some(missing)} is missing: add what is "
            "missing, or leave 'token_labels' out"
        )


def check_classes(maps: torch.Tensor, classes: int) -> None:
    """Refuse maps (B, 2, k, H, W) of other classes.

    Raises:
        UserError: saying which.
    """
    least, most = float(maps[:, 1].min()), float(maps[:, 1].max())
    if not 0 <= least <= most < classes:
        raise UserError(
            f"token labels must be of the classes 0..{classes - 1}, but are of {least:g}..{most:g}: use files "
            "that were made for these classes"
        )


def read_map(path: Path) -> torch.Tensor:
    """Return a file's map (2, k, H, W) float16.

    Raises:
        UserError: if there is no such file, or it holds something else.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"the file of token labels {path} is missing: add it, or leave 'token_labels' out") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError):
        raise UserError(f"{path} must be a file that torch.save wrote, but can't be read: restore it") from None
    if not isinstance(found, torch.Tensor) or found.ndim != 4 or len(found) != 2 or not found.numel():
        given = f"a tensor {tuple(found.shape)}" if isinstance(found, torch.Tensor) else f"a {type(found).__name__}"
        raise UserError(f"{path} must hold a tensor (2, classes, rows, columns), but holds {given}: restore it")
    return found.half()


class TokenLabelTransform:
    """The training transform of token labelling: flip, RandAugment, random resized crop, erasing.

    What moves the contents of the image moves those of its map; the crop is handed on, and erasing is ignored. timm's
    own order, in which the crop comes first, would leave the map without a place in the image.

    Args:
        config: of the data.
        root: folder of the files.

    Raises:
        UserError: if `augmentation.auto_augment` is not a RandAugment policy.
    """

    def __init__(self, config: DataConfig, root: Path) -> None:
        policy = config.augmentation.auto_augment
        if policy is not None and not policy.startswith("rand"):
            raise UserError(
                f"with 'token_labels' images are augmented by RandAugment, but 'auto_augment' is '{policy}': use a "
                "policy such as 'rand-m9-mstd0.5-inc1', or null for none"
            )
        self._root = root
        self._canvas = config.image_size
        self._flip = config.augmentation.hflip
        (self._crop, *_), self._colours, self._finish = timm_stages(config)
        self._policy: Any = None
        if policy is not None:
            (self._policy,) = self._colours
            self._colours = []
            for operation in self._policy.ops:
                operation.aug_fn = partial(_on_pair, operation.aug_fn, operation.name.startswith(_MOVES))

    def __call__(self, sample: Sample) -> Placed:
        """Return the augmented image with its `TokenLabel`.

        Raises:
            UserError: if its file is missing or holds something else.
        """
        image, height, width = sample.image, sample.image.height, sample.image.width
        found = read_map(self._root / label_file(str(sample.id)))
        rows, columns = found.shape[2:]
        cells = Image.fromarray(np.arange(1, rows * columns + 1, dtype=np.int32).reshape(rows, columns))
        if random.random() < self._flip:
            image, cells = F.hflip(image), F.hflip(cells)
        if self._policy is not None:
            image, cells = self._policy((image, cells))
        image = apply(self._colours, image)
        box = top, left, tall, wide = self._crop.get_params(image, self._crop.scale, self._crop.ratio)
        placed = self._finish(resized_crop(image, box, self._canvas, random.choice(self._crop.interpolation)))
        crop = (top / height, left / width, tall / height, wide / width)
        target = TokenLabel(sample.target, _moved(found, cells), crop)
        return Placed(placed, target, ImageInfo(id=sample.id, size=(height, width), valid=self._canvas))


def _on_pair(
    function: Callable[..., Image.Image], moves: bool, pair: tuple[Image.Image, Image.Image], *levels: Any, **how: Any
) -> tuple[Image.Image, Image.Image]:
    """Apply an operation to an image, and where it moves contents to the numbers of its cells; uncovered ones are 0."""
    image, cells = pair
    if moves:
        cells = function(cells, *levels, **{**how, "fillcolor": 0, "resample": Image.Resampling.NEAREST})
    return function(image, *levels, **how), cells


def _moved(found: torch.Tensor, cells: Image.Image) -> torch.Tensor:
    """Return a map whose cells were moved; where nothing came to lie, every class has a logit of 0."""
    numbers = torch.from_numpy(np.array(cells, dtype=np.int64))
    padded = torch.cat((found.new_zeros(2, found.shape[1], 1), found.flatten(2)), dim=2)
    return padded[:, :, numbers]
