"""Drawing labels and predictions on images.

Small images are enlarged first, so that boxes and names can be read.

Shapes: B batch, n objects, H, W in pixels.
"""

import colorsys
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from nasmvt.data.types import IGNORE

_SIDE = 256
_LARGEST_FACTOR = 4
_CAPTION = 16
_ALPHA = 0.5

Color = tuple[int, int, int]


def class_color(label: int) -> Color:
    """Return the colour (red, green, blue, 0..255) of a class, far from those of its neighbours."""
    hue = (label * 0.618034 + 0.02) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0 if label % 2 == 0 else 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_objects(
    image: Tensor, boxes: Tensor, labels: Sequence[int], names: list[str], masks: Tensor | None
) -> Image.Image:
    """Draw masks (n, H, W), boxes (n, 4) and names on a uint8 image (3, H, W), enlarged."""
    factor = _factor(image)
    picture = enlarge(image)
    if not len(boxes):
        return _to_pil(picture)
    colors = [class_color(label) for label in labels]
    if masks is not None:
        large = F.interpolate(masks[None].float(), scale_factor=factor, mode="nearest")[0].bool()
        picture = draw_segmentation_masks(picture, large, alpha=_ALPHA, colors=colors)
    large_boxes = boxes.float() * factor
    drawn = _to_pil(draw_bounding_boxes(picture, large_boxes, colors=colors, width=2))
    for (left, top, _, _), name, color in zip(large_boxes.tolist(), names, colors, strict=True):
        _tag(drawn, left, top, name, color)
    return drawn


def _tag(picture: Image.Image, left: float, top: float, name: str, color: Color) -> None:
    """Write a name on its colour, inside the image, at the top left corner of a box."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default()
    _, _, x1, y1 = draw.textbbox((left + 2, top + 1), name, font=font)
    draw.rectangle((left, top, x1 + 2, y1 + 2), fill=color)
    dark = 0.3 * color[0] + 0.6 * color[1] + 0.1 * color[2] < 110
    draw.text((left + 2, top + 1), name, fill="white" if dark else "black", font=font)


def to_bytes(image: Tensor) -> Tensor:
    """Return an image (3, H, W), uint8 in 0..255 or float in 0..1, as uint8 on the CPU."""
    image = image.cpu()
    return (image.clamp(0, 1) * 255).round().to(torch.uint8) if image.is_floating_point() else image


def _to_pil(image: Tensor) -> Image.Image:
    picture: Image.Image = to_pil_image(image)
    return picture


def draw_regions(image: Tensor, labels_HW: Tensor, classes: Sequence[str]) -> Image.Image:
    """Colour the pixels of an image by class, and name the classes that cover most."""
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
    return min(max(_SIDE // max(image.shape[1:]), 1), _LARGEST_FACTOR)


def enlarge(image: Tensor) -> Tensor:
    """Repeat the pixels of an image (C, H, W) so that its longer side comes near 256."""
    factor = _factor(image)
    return image.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)


def with_caption(image: Tensor, *words: str, colors: Sequence[Color] = ()) -> Image.Image:
    """Write words, each in its colour, on a strip below a uint8 image (3, H, W)."""
    picture = _to_pil(image)
    strip = Image.new("RGB", (picture.width, picture.height + _CAPTION), "black")
    strip.paste(picture, (0, 0))
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default()
    left = 2.0
    for i, word in enumerate(words):
        draw.text((left, picture.height + 2), word, fill=colors[i] if colors else "white", font=font)
        left += draw.textlength(f"{word}  ", font=font)
    return strip


def draw_grid(cells: Sequence[Image.Image]) -> Image.Image:
    """Lay images of one size in a grid that is about as wide as high."""
    gap = 4
    columns = max(round(len(cells) ** 0.5), 1)
    rows = -(-len(cells) // columns)
    width = max((cell.width for cell in cells), default=1) + gap
    height = max((cell.height for cell in cells), default=1) + gap
    grid = Image.new("RGB", (columns * width, max(rows, 1) * height), "white")
    for i, cell in enumerate(cells):
        grid.paste(cell, (i % columns * width, i // columns * height))
    return grid
