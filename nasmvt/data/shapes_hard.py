"""Generated images on which capacity matters: the built-in data set for comparing networks.

The hues of the classes go round the circle, and those of neighbours overlap, so that outline and texture decide. The
ground has a faint texture of the same kinds, objects are small or large, thin or not, overlap, and are crossed by rods
that belong to no class. Scenes have up to five objects, one for classification.
"""

import colorsys
import math

import numpy as np
from PIL import Image

from nasmvt.data.drawn import DrawnDataset, Scene, Thing
from nasmvt.data.formats import register_format
from nasmvt.data.silhouettes import silhouette

_LOOKS = (
    *(("circle", ""), ("circle", "striped"), ("ring", ""), ("square", "checked")),
    *(("square", ""), ("cross", ""), ("triangle", ""), ("bar", "")),
)
"""Outline and texture of the classes, whose mean hues go round the circle in this order."""
_HUE_SPREAD = 0.045
"""Standard deviation around the mean hue of a class; those of neighbours are 1/8 apart."""

_MIN_VISIBLE = 0.4
"""An object with fewer visible pixels is not drawn."""
_RELIEF = 60.0
"""How far a texture goes above and below the colour of an object, of 255."""
_GROUND_RELIEF = 8.0
"""The same for the ground."""


@register_format("shapes_hard", files=False)
class HardShapes(DrawnDataset):
    """Textured shapes on a textured ground, behind rods."""

    name = "shapes_hard"
    things = tuple(f"{texture} {outline}".strip() for outline, texture in _LOOKS)

    def draw(self, random: np.random.Generator, size: tuple[int, int], kind: str) -> Scene:
        """Draw one object for classification, else up to five."""
        canvas, striped = _ground(random, size)
        count, radii = (1, (0.18, 0.4)) if kind == "classification" else (int(random.integers(1, 6)), (0.09, 0.3))
        rods = [_rod(random, size) for _ in range(int(random.integers(0, 3)))]
        things = _place(random, size, count, radii, taken=np.logical_or.reduce([np.zeros(size, dtype=bool), *rods]))
        for thing in things:
            _, texture = _LOOKS[thing.label]
            canvas[thing.mask] = _colour(random, thing.label / len(_LOOKS))
            canvas[thing.mask] += _RELIEF * _texture(random, texture, size)[thing.mask][:, None]
        for rod in rods:
            canvas[rod] = _colour(random, random.uniform(0, 1))
        canvas += random.normal(0.0, 8.0, (*size, 1)).astype(np.float32)
        return Scene(canvas, things, striped)


def _colour(random: np.random.Generator, hue: float) -> np.ndarray:
    """Return a random colour around a hue, in 0..255."""
    shade = (hue + random.normal(0.0, _HUE_SPREAD)) % 1.0, random.uniform(0.5, 0.95), random.uniform(0.5, 0.95)
    return 255 * np.array(colorsys.hsv_to_rgb(*shade), dtype=np.float32)


def _texture(random: np.random.Generator, name: str, size: tuple[int, int]) -> np.ndarray:
    """Return a texture of random direction and period as (H, W) float32, -1 or 1; none: 0 everywhere."""
    if not name:
        return np.zeros(size, dtype=np.float32)
    rows, columns = np.ogrid[: size[0], : size[1]]
    angle, period = random.uniform(0, math.pi), random.uniform(0.07, 0.11) * min(size)
    across, along = random.uniform(0, 2 * math.pi, 2)
    c, s = math.cos(angle) * 2 * math.pi / period, math.sin(angle) * 2 * math.pi / period
    waves = np.sign(np.sin(c * columns + s * rows + across))
    if name == "checked":
        waves = waves * np.sign(np.sin(c * rows - s * columns + along))
    return waves.astype(np.float32)


def _ground(random: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the ground (H, W, 3), a blurred grey with a texture on each side of a line, and where it is striped."""
    height, width = size
    coarse = random.uniform(50, 205) + random.normal(0.0, 25.0, (4, 4, 1)) + random.normal(0.0, 8.0, (4, 4, 3))
    picture = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    canvas = np.asarray(picture).astype(np.float32)
    turn = random.uniform(0, 2 * math.pi)
    rows, columns = np.ogrid[:height, :width]
    striped = (columns - width / 2) * math.cos(turn) + (rows - height / 2) * math.sin(turn) > 0
    relief = np.where(striped, _texture(random, "striped", size), _texture(random, "checked", size))
    return canvas + _GROUND_RELIEF * relief[..., None], striped


def _rod(random: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Return where a rod lies that belongs to no class: a bar far longer than the image."""
    x, y, angle = random.uniform(0, size[1]), random.uniform(0, size[0]), random.uniform(0, math.pi)
    rows, columns = np.ogrid[: size[0], : size[1]]
    off = np.abs((columns - x) * math.sin(angle) - (rows - y) * math.cos(angle))
    rod: np.ndarray = off <= random.uniform(0.01, 0.03) * min(size)
    return rod


def _place(
    random: np.random.Generator, size: tuple[int, int], count: int, radii: tuple[float, float], taken: np.ndarray
) -> list[Thing]:
    """Place objects from the topmost down, one at least; one that is mostly covered is dropped.

    Args:
        random: source of randomness.
        size: height and width of the image.
        count: objects that are tried.
        radii: the smallest and the largest radius, as a part of the image's shorter side; small ones are more frequent.
        taken: (H, W) bool: what is covered already.
    """
    height, width = size
    things: list[Thing] = []
    while count > 0 or not things:
        count -= 1
        radius = math.exp(random.uniform(*np.log(radii))) * min(size)
        x, y = random.uniform(radius, width - radius), random.uniform(radius, height - radius)
        label, angle = int(random.integers(len(_LOOKS))), random.uniform(0, 2 * math.pi)
        mask = silhouette(_LOOKS[label][0], x, y, radius, angle, size)
        visible = mask & ~taken
        if visible.sum() >= _MIN_VISIBLE * mask.sum():
            things.append(Thing(label, visible))
            taken = taken | mask
    return things
