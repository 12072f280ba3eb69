"""Drawing labels and predictions on images.

Small images are enlarged first, so that boxes and names can be read; names stand where they cover no object.

Shapes: n objects, H, W in pixels.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from nasmvt.data.types import IGNORE

_SIDE = 256
_LINE = 14
_MOST_LINES = 8
_ALPHA = 0.5

Color = tuple[int, int, int]
Box = tuple[float, float, float, float]


def class_color(label: int) -> Color:
    """Return the colour (red, green, blue, 0..255) of a class; those of 256 classes differ."""
    colors = _colors()
    return colors[label % len(colors)]


@lru_cache(maxsize=1)
def _colors() -> list[Color]:
    """Return 256 colours, each as far from all before it as any is (Glasbey et al., Color Res. Appl. 2007)."""
    steps = np.arange(0, 256, 15)
    all_N3 = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    vivid = (np.ptp(all_N3, axis=1) > 90) & (all_N3.max(axis=1) > 120)  # others look like the image itself
    colors_N3 = all_N3[vivid].astype(float)
    chosen = [int(np.abs(colors_N3 - (230, 60, 45)).sum(axis=1).argmin())]
    nearest_N = np.full(len(colors_N3), np.inf)
    while len(chosen) < 256:
        difference_N3 = colors_N3 - colors_N3[chosen[-1]]
        red_N = (colors_N3[:, 0] + colors_N3[chosen[-1], 0]) / 512
        weights_N3 = np.stack([2 + red_N, np.full_like(red_N, 4.0), 3 - red_N], axis=1)  # as an eye weighs them
        nearest_N = np.minimum(nearest_N, (weights_N3 * difference_N3**2).sum(axis=1))
        chosen.append(int(nearest_N.argmax()))
    return [(int(red), int(green), int(blue)) for red, green, blue in colors_N3[chosen]]


def draw_objects(
    image: Tensor,
    boxes: Tensor,
    labels: Sequence[int],
    classes: Sequence[str],
    masks: Tensor | None,
    scores: Sequence[float] | None = None,
) -> Image.Image:
    """Draw objects on a uint8 image, enlarged, with a legend of their classes below it.

    A name or score stands beside its box, if it covers no object there. A single class needs no name.

    Args:
        image: (3, H, W).
        boxes: (n, 4) xyxy.
        labels: the class of each object.
        classes: all class names.
        masks: (n, H, W) bool, if there are any.
        scores: the score of each object, if there are any.
    """
    factor = _factor(image)
    picture = enlarge(image)
    several = len(classes) > 1
    if not len(boxes):
        return with_caption(picture) if several else _to_pil(picture)
    colors = [class_color(label) for label in labels]
    if masks is not None:
        large = F.interpolate(masks[None].float(), scale_factor=factor, mode="nearest")[0].bool()
        picture = draw_segmentation_masks(picture, large, alpha=_ALPHA, colors=colors)
    large_boxes = boxes.float() * factor
    drawn = _to_pil(draw_bounding_boxes(picture, large_boxes, colors=colors, width=2))
    names = [[classes[label]] if several else [] for label in labels]
    texts = [" ".join(name) for name in names]
    if scores is not None:
        texts = [" ".join([*name, f"{score:.2f}"]) for name, score in zip(names, scores, strict=True)]
    _tag_all(drawn, [tuple(box) for box in large_boxes.tolist()], texts, colors)
    present = sorted(set(labels))
    if not several:
        return drawn
    return _with_legend(drawn, [classes[label] for label in present], [class_color(label) for label in present])


def _tag_all(picture: Image.Image, boxes: Sequence[Box], texts: Sequence[str], colors: Sequence[Color]) -> None:
    """Write texts on their colours beside boxes; one that would cover an object or another text is left out."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default()
    taken = list(boxes)
    for own, text, color in zip(boxes, texts, colors, strict=True):
        width, height = draw.textlength(text, font=font) + 4, 13.0
        left, top, right, bottom = own
        corners = (
            (left, top - height),
            (left, bottom),
            (right, top),
            (left - width, top),
            (right - width, top - height),
        )
        places = [(x, y, x + width, y + height) for x, y in corners]
        inside = [place for place in places if _within(place, picture.size)]
        roomy = (left + 2, top + 2, left + 2 + width, top + 2 + height)
        if (right - left) * (bottom - top) > 8 * width * height:  # inside a box that it hides little of
            inside.append(roomy)
        free = [place for place in inside if not any(_meet(place, box) for box in taken if box is not own)]
        if text and free:
            draw.rectangle(free[0], fill=color)
            dark = 0.3 * color[0] + 0.6 * color[1] + 0.1 * color[2] < 110
            draw.text((free[0][0] + 2, free[0][1] + 1), text, fill="white" if dark else "black", font=font)
            taken.append(free[0])


def _within(place: Box, size: tuple[int, int]) -> bool:
    return place[0] >= 0 and place[1] >= 0 and place[2] <= size[0] and place[3] <= size[1]


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def to_bytes(image: Tensor) -> Tensor:
    """Return an image (3, H, W), uint8 in 0..255 or float in 0..1, as uint8 on the CPU."""
    image = image.cpu()
    return (image.clamp(0, 1) * 255).round().to(torch.uint8) if image.is_floating_point() else image


def _to_pil(image: Tensor) -> Image.Image:
    picture: Image.Image = to_pil_image(image)
    return picture


def draw_regions(image: Tensor, labels_HW: Tensor, classes: Sequence[str]) -> Image.Image:
    """Colour the pixels of an image by class, and name the classes below it, the largest first."""
    counts = torch.bincount(labels_HW[labels_HW != IGNORE], minlength=len(classes))
    present = [i for i in counts.argsort(descending=True, stable=True).tolist() if counts[i]]
    picture = enlarge(image)
    if present:
        large = enlarge(labels_HW[None])[0]
        masks = torch.stack([large == i for i in present])
        colors = [class_color(i) for i in present]
        picture = draw_segmentation_masks(picture, masks, alpha=_ALPHA, colors=colors)
    return with_caption(picture, *(classes[i] for i in present), colors=[class_color(i) for i in present])


def _factor(image: Tensor) -> int:
    return max(_SIDE // max(image.shape[1:]), 1)


def enlarge(image: Tensor) -> Tensor:
    """Repeat the pixels of an image (C, H, W) so that its longer side comes near 256."""
    factor = _factor(image)
    return image.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)


def with_caption(image: Tensor, *words: str, colors: Sequence[Color] = ()) -> Image.Image:
    """Write words, each with a patch of its colour, on lines below a uint8 image (3, H, W)."""
    return _with_legend(_to_pil(image), words, colors)


def _with_legend(picture: Image.Image, words: Sequence[str], colors: Sequence[Color]) -> Image.Image:
    font, patch = ImageFont.load_default(), 10 if colors else 0
    rows = _rows([font.getlength(word) + patch + 8 for word in words], picture.width)
    shown, rest = rows[:_MOST_LINES], sum(map(len, rows[_MOST_LINES:]))
    height = picture.height + _LINE * max(len(shown) + bool(rest), 1) + 2
    strip = Image.new("RGB", (picture.width, height), "black")
    strip.paste(picture, (0, 0))
    draw = ImageDraw.Draw(strip)
    for line, row in enumerate(shown):
        left, top = 2.0, picture.height + 1 + _LINE * line
        for number in row:
            if colors:
                draw.rectangle((left, top + 3, left + 7, top + 10), fill=colors[number])
            draw.text((left + patch, top), words[number], fill="white", font=font)
            left += font.getlength(words[number]) + patch + 8
    if rest:
        draw.text((2, picture.height + 1 + _LINE * len(shown)), f"and {rest} more", fill="white", font=font)
    return strip


def _rows(widths: Sequence[float], room: float) -> list[list[int]]:
    """Return which items stand on each line, so that none is wider than there is room, single items aside."""
    rows: list[list[int]] = []
    used = 0.0
    for number, width in enumerate(widths):
        if rows and used + width <= room:
            rows[-1].append(number)
            used += width
        else:
            rows.append([number])
            used = width
    return rows


def draw_grid(cells: Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """Lay images in a grid.

    Args:
        cells: the images, row by row.
        columns: images in a row; None: as many as make the grid about as wide as high.
    """
    gap = 4
    columns = columns or max(round(len(cells) ** 0.5), 1)
    rows = -(-len(cells) // columns)
    width = max((cell.width for cell in cells), default=1) + gap
    height = max((cell.height for cell in cells), default=1) + gap
    grid = Image.new("RGB", (columns * width, max(rows, 1) * height), "white")
    for i, cell in enumerate(cells):
        grid.paste(cell, (i % columns * width, i // columns * height))
    return grid
