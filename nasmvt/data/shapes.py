"""Generated images of simple shapes: data for every kind of task without a download.

The background is blurred noise, nearly grey, with thin strokes of random colours; a shape has a random position, size,
rotation and noise. Its hue is drawn around the mean of its class: circles and rings have similar hues, and so have
squares and crosses, so that colour is learned within a few hundred steps and form decides the rest. There is one shape
for classification; there are one to four, which may overlap, for detection, segmentation and panoptic segmentation. For
the latter the ground is divided by a line, and has stripes on one side of it.
"""

import colorsys
import math

import numpy as np
from PIL import Image, ImageDraw

from nasmvt.data.drawn import DrawnDataset, Scene, Thing
from nasmvt.data.formats import register_format
from nasmvt.data.silhouettes import silhouette

SHAPES = ("circle", "square", "triangle", "cross", "ring")

_HUES = {"circle": 0.0, "ring": 0.07, "square": 0.33, "cross": 0.42, "triangle": 0.64}
"""Mean hue of each class, in 0..1; a shape's own is normal around it."""
_HUE_SPREAD = 0.03
_MIN_VISIBLE = 0.5
"""A shape with fewer visible pixels is not drawn."""


@register_format("shapes", files=False)
class Shapes(DrawnDataset):
    """Shapes of one colour, on a ground that is plain but for a few strokes."""

    name = "shapes"
    things = SHAPES

    def draw(self, random: np.random.Generator, size: tuple[int, int], kind: str) -> Scene:
        """Draw one shape for classification, else up to four."""
        canvas = _ground(random, size)
        striped = _stripe(random, canvas) if kind == "panoptic" else np.zeros(size, dtype=bool)
        if kind == "classification":
            shapes = _place(random, size, count=1, radii=(0.2, 0.4))
        else:
            shapes = _place(random, size, count=int(random.integers(1, 5)), radii=(0.12, 0.3))
        for shape in shapes:
            _paint(random, canvas, shape)
        canvas += random.normal(0.0, 10.0, canvas.shape).astype(np.float32)
        return Scene(canvas, shapes, striped)


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
) -> list[Thing]:
    """Place shapes from the topmost down; one that is mostly covered by others is dropped."""
    height, width = size
    shapes: list[Thing] = []
    taken = np.zeros(size, dtype=bool)
    for _ in range(count):
        radius = random.uniform(*radii) * min(size)
        x, y = random.uniform(radius, width - radius), random.uniform(radius, height - radius)
        label, angle = int(random.integers(len(SHAPES))), random.uniform(0, 2 * math.pi)
        mask = silhouette(SHAPES[label], x, y, radius, angle, size)
        visible = mask & ~taken
        if visible.sum() >= _MIN_VISIBLE * mask.sum():
            shapes.append(Thing(label, visible))
            taken |= mask
    return shapes


def _paint(random: np.random.Generator, canvas: np.ndarray, shape: Thing) -> None:
    """Fill a shape with a noisy colour of its class, in place."""
    hue = (_HUES[SHAPES[shape.label]] + random.normal(0.0, _HUE_SPREAD)) % 1.0
    colour = colorsys.hsv_to_rgb(hue, random.uniform(0.5, 0.95), random.uniform(0.45, 1.0))
    grain = random.normal(0.0, 12.0, (int(shape.mask.sum()), 1))
    canvas[shape.mask] = 255 * np.array(colour) + grain
