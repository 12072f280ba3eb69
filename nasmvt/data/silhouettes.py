"""Outlines of simple shapes, drawn at any place, size and angle."""

import math

import numpy as np
from PIL import Image, ImageDraw


def silhouette(name: str, x: float, y: float, radius: float, angle: float, size: tuple[int, int]) -> np.ndarray:
    """Draw a shape as a bool array (H, W), never empty.

    Args:
        name: circle, ring, square, triangle, cross, star or bar.
        x: column of its middle.
        y: row of its middle.
        radius: of the circle that it lies in.
        angle: by which it is turned.
        size: height and width of the image.
    """
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
    if name == "bar":
        length, half = 0.98, 0.17
        return [(-length, -half), (length, -half), (length, half), (-length, half)]
    if name == "star":
        points = ((math.pi * k / 5, 0.45 if k % 2 else 1.0) for k in range(10))
        return [(r * math.cos(turn), r * math.sin(turn)) for turn, r in points]
    sides = {"triangle": 3, "square": 4}[name]
    return [(math.cos(2 * math.pi * k / sides), math.sin(2 * math.pi * k / sides)) for k in range(sides)]
