"""Generated images of simple shapes: data for every kind of task without a download.

An image is a function of (seed, split, index) alone. The background is blurred noise, nearly grey, with thin
strokes of random colours; a shape has a random position, size, rotation and noise. Its hue is drawn around
the mean of its class: circles and rings have similar hues, and so have squares and crosses, so that colour is
learned within a few hundred steps and form decides the rest. There is one shape for classification; there
are one to four, which may overlap, for detection, segmentation and panoptic segmentation. For the latter the ground is
divided by a line, and has stripes on one side of it.
"""

import colorsys
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from nasmvt.data.dataset import Dataset, Request, class_names, text_digest
from nasmvt.data.formats import register_format
from nasmvt.data.masks import ObjectMasks
from nasmvt.data.panoptic import Segment, Segments
from nasmvt.data.types import DataInfo, Sample
from nasmvt.seeding import derive_seed

SHAPES = ("circle", "square", "triangle", "cross", "ring")
"""The classes; segmentation puts "background" before them."""

STUFF = ("plain", "stripes")
"""Panoptic segmentation: the classes of the ground, after those of the shapes."""

_HUES = {"circle": 0.0, "ring": 0.07, "square": 0.33, "cross": 0.42, "triangle": 0.64}
"""Mean hue of each class, in 0..1; a shape's own is normal around it."""
_HUE_SPREAD = 0.03
_MIN_VISIBLE = 0.5
"""A shape with fewer visible pixels is not drawn."""


@dataclass(frozen=True)
class _Shape:
    label: int
    mask: np.ndarray
    """(H, W) bool: the visible part."""


@register_format("shapes", files=False)
class Shapes(Dataset):
    """Generated shapes with labels for one kind of task.

    Detection: boxes are tight around the visible part of a shape and every shape has a mask.
    Segmentation: every pixel has a label, the background's is 0. Panoptic segmentation: shapes are things, the plain
    and the striped part of the ground are stuff.
    """

    def __init__(self, request: Request) -> None:
        config, kind = request.config, request.kind
        self._kind = kind
        self._split = request.split
        self._seed = request.seed
        self._size = config.image_size
        self._length = config.train_images if request.split == "train" else config.val_images
        names = {"segmentation": ("background", *SHAPES), "panoptic": (*SHAPES, *STUFF)}.get(kind, SHAPES)
        self.info = DataInfo(kind=kind, classes=class_names(config, names), **_INFO.get(kind, {}))

    def __len__(self) -> int:
        """Return the number of images."""
        return self._length

    def __getitem__(self, index: int) -> Sample:
        """Draw one image and return it with its labels."""
        if not 0 <= index < self._length:
            raise IndexError(f"there is no image {index} among {self._length}")
        random = np.random.default_rng(derive_seed("shapes", self._seed, self._split, index))
        canvas = _ground(random, self._size)
        striped = _stripe(random, canvas) if self._kind == "panoptic" else np.zeros(self._size, dtype=bool)
        if self._kind == "classification":
            shapes = _place(random, self._size, count=1, radii=(0.2, 0.4))
        else:
            shapes = _place(random, self._size, count=int(random.integers(1, 5)), radii=(0.12, 0.3))
        for shape in shapes:
            _paint(random, canvas, shape)
        canvas += random.normal(0.0, 10.0, canvas.shape).astype(np.float32)
        picture = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
        return Sample(
            id=f"{self._split}/{index}", image=picture, target=_TARGETS.get(self._kind, _objects)(shapes, striped)
        )

    def digest(self) -> str:
        """Return a digest of the parameters of the images."""
        return text_digest("shapes", self._kind, self._split, str(self._seed), str(self._size), str(self._length))


def _objects(shapes: list[_Shape], striped: np.ndarray) -> dict[str, Any]:
    """Return the target of detection."""
    return {
        "boxes": torch.tensor([_bounds(shape.mask) for shape in shapes], dtype=torch.float32),
        "labels": torch.tensor([shape.label for shape in shapes], dtype=torch.int64),
        "crowd": torch.zeros(len(shapes), dtype=torch.bool),
        "masks": ObjectMasks((striped.shape[0], striped.shape[1]), [shape.mask for shape in shapes]),
    }


def _label_map(shapes: list[_Shape], striped: np.ndarray) -> torch.Tensor:
    """Return the target of segmentation."""
    labels = np.zeros(striped.shape, dtype=np.uint8)
    for shape in shapes:
        labels[shape.mask] = shape.label + 1
    return torch.from_numpy(labels)


def _panoptic(shapes: list[_Shape], striped: np.ndarray) -> Segments:
    """Return the target of panoptic segmentation."""
    ids = np.where(striped, 2, 1).astype(np.int32)
    for number, shape in enumerate(shapes, start=3):
        ids[shape.mask] = number
    labels = [len(SHAPES), len(SHAPES) + 1, *(shape.label for shape in shapes)]
    segments = [
        Segment(id=number, label=label, thing=label < len(SHAPES), area=int((ids == number).sum()))
        for number, label in enumerate(labels, start=1)
    ]
    return Segments.of(ids, [segment for segment in segments if segment.area])


_TARGETS: Mapping[str, Callable[[list[_Shape], np.ndarray], Any]] = {
    "classification": lambda shapes, striped: shapes[0].label,
    "segmentation": _label_map,
    "panoptic": _panoptic,
}
"""The target of each kind from the shapes and the striped part of the ground; that of others is detection's."""

_INFO: Mapping[str, Mapping[str, Any]] = {
    "detection": {"has_masks": True},
    "panoptic": {
        "has_masks": True,
        "things": len(SHAPES),
        "category_ids": tuple(range(1, len(SHAPES) + len(STUFF) + 1)),
    },
}
"""What a network has to know of each kind's data beside the classes."""


def _stripe(random: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Put stripes on one side of a random line through the middle of the ground, in place.

    Returns:
        Bool (H, W): the striped part.
    """
    height, width = canvas.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    line, across = random.uniform(0, 2 * math.pi, 2)
    side = (columns - width / 2) * math.cos(line) + (rows - height / 2) * math.sin(line) > 0
    waves = np.sin((columns * math.cos(across) + rows * math.sin(across)) * (2 * math.pi / 6))
    canvas[side] += 45 * waves[side][:, None]
    striped: np.ndarray = side
    return striped


def _ground(random: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W, 3) float32 in 0..255: blurred noise around a random grey, with strokes."""
    height, width = size
    coarse = random.uniform(40, 215) + random.normal(0.0, 30.0, (5, 5, 1)) + random.normal(0.0, 10.0, (5, 5, 3))
    picture = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for x0, y0, x1, y1 in random.uniform(0, 1, (int(random.integers(2, 6)), 4)).tolist():
        colour = tuple(random.integers(0, 256, 3).tolist())
        pen.line((x0 * width, y0 * height, x1 * width, y1 * height), fill=colour, width=max(1, min(size) // 64))
    return np.asarray(picture).astype(np.float32)


def _place(
    random: np.random.Generator, size: tuple[int, int], *, count: int, radii: tuple[float, float]
) -> list[_Shape]:
    """Place shapes from the topmost down; one that is mostly covered by others is dropped."""
    height, width = size
    shapes: list[_Shape] = []
    taken = np.zeros(size, dtype=bool)
    for _ in range(count):
        radius = random.uniform(*radii) * min(size)
        x, y = random.uniform(radius, width - radius), random.uniform(radius, height - radius)
        label, angle = int(random.integers(len(SHAPES))), random.uniform(0, 2 * math.pi)
        mask = _silhouette(SHAPES[label], x, y, radius, angle, size)
        visible = mask & ~taken
        if visible.sum() >= _MIN_VISIBLE * mask.sum():
            shapes.append(_Shape(label, visible))
            taken |= mask
    return shapes


def _silhouette(name: str, x: float, y: float, radius: float, angle: float, size: tuple[int, int]) -> np.ndarray:
    """Draw a shape inside the circle of `radius` around (x, y) as a bool array (H, W), never empty."""
    picture = Image.new("1", (size[1], size[0]))
    pen = ImageDraw.Draw(picture)
    if name in ("circle", "ring"):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
        if name == "ring":
            hole = 0.55 * radius
            pen.ellipse((x - hole, y - hole, x + hole, y + hole), fill=0)
    else:
        corners = _corners(name)
        turned = [
            (
                x + radius * (math.cos(angle) * u - math.sin(angle) * v),
                y + radius * (math.sin(angle) * u + math.cos(angle) * v),
            )
            for u, v in corners
        ]
        pen.polygon(turned, fill=1)
    return np.asarray(picture).astype(bool)


def _corners(name: str) -> list[tuple[float, float]]:
    """Return the corners of a shape with straight sides, inside the unit circle around 0."""
    if name == "cross":
        arm, half = 0.95, 0.28
        quarter = [(half, -half), (arm, -half), (arm, half)]
        turns = ((1, 0), (0, 1), (-1, 0), (0, -1))
        return [(c * u - s * v, s * u + c * v) for c, s in turns for u, v in quarter]
    sides = {"triangle": 3, "square": 4}[name]
    return [(math.cos(2 * math.pi * k / sides), math.sin(2 * math.pi * k / sides)) for k in range(sides)]


def _paint(random: np.random.Generator, canvas: np.ndarray, shape: _Shape) -> None:
    """Fill a shape with a noisy colour of its class, in place."""
    hue = (_HUES[SHAPES[shape.label]] + random.normal(0.0, _HUE_SPREAD)) % 1.0
    colour = colorsys.hsv_to_rgb(hue, random.uniform(0.5, 0.95), random.uniform(0.45, 1.0))
    grain = random.normal(0.0, 12.0, (int(shape.mask.sum()), 1))
    canvas[shape.mask] = 255 * np.array(colour) + grain


def _bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
