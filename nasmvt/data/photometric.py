"""Photometric distortion of training images, as SSD and mmsegmentation do it.

Source: SSD (arXiv:1512.02325), section 2.2; mmsegmentation 0.x computes it on bytes with OpenCV. Here it is the same
to the byte.

Shapes: H, W height and width.
"""

import torch
from torch import Tensor

_FIXED = 4096
"""OpenCV divides by tables of fixed-point numbers with 12 bits behind the point."""
_CHANNELS = ((0, 3, 1), (2, 0, 1), (1, 0, 3), (1, 2, 0), (3, 1, 0), (0, 1, 2))
"""Which of the four mixed values are red, green and blue in each sixth of the circle of hues."""


def distort(image: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of an image uint8 (3, H, W), each with a probability of a half.

    Random numbers come from torch's global generator.
    """
    bright, early, contrasts, saturates, turns = (torch.rand(5) < 0.5).tolist()
    beta, alpha, strength = ((torch.rand(3) * 2 - 1) * torch.tensor((32.0, 0.5, 0.5))).tolist()
    degrees = int(torch.randint(-18, 18, (1,)))
    if bright:
        image = scaled(image, 1.0, beta)
    if contrasts and early:
        image = scaled(image, 1 + alpha)
    if saturates:
        image = saturated(image, 1 + strength)
    if turns:
        image = turned(image, degrees)
    if contrasts and not early:
        image = scaled(image, 1 + alpha)
    return image


def scaled(values: Tensor, factor: float, shift: float = 0.0) -> Tensor:
    """Return bytes times a factor plus a shift, clipped and rounded down."""
    return (values.float() * factor + shift).clamp(0, 255).to(torch.uint8)


def saturated(image: Tensor, factor: float) -> Tensor:
    """Return an image uint8 (3, H, W) with its saturation times a factor."""
    hue, saturation, value = _to_hsv(image)
    return _to_rgb(hue, scaled(saturation, factor).int(), value)


def turned(image: Tensor, steps: int) -> Tensor:
    """Return an image uint8 (3, H, W) with its hue turned by steps of 2 degrees."""
    hue, saturation, value = _to_hsv(image)
    return _to_rgb((hue + steps) % 180, saturation, value)


def _to_hsv(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return hue 0..179, saturation and value 0..255, integers (H, W)."""
    pixels = image.int()
    red, green, blue = pixels.unbind(0)
    value = pixels.amax(0)
    spread = value - pixels.amin(0)
    from_green, from_blue = blue - red + 2 * spread, red - green + 4 * spread
    hue = torch.where(value == red, green - blue, torch.where(value == green, from_green, from_blue))
    hue = hue * _over(30, spread) + _FIXED // 2 >> 12
    saturation = spread * _over(255, value) + _FIXED // 2 >> 12
    return torch.where(hue < 0, hue + 180, hue), saturation, value


def _over(numerator: int, denominators: Tensor) -> Tensor:
    """Return the fixed-point quotient of a number and each of some others; 0 where one is 0."""
    quotients = (numerator * _FIXED / denominators.clamp(min=1).double()).round().int()
    return torch.where(denominators > 0, quotients, 0)


def _to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Return the image uint8 (3, H, W) of hue, saturation and value (H, W)."""
    turn, s, v = hue.float() * (6 / 180), saturation.float() * (1 / 255), value.float() * (1 / 255)
    sixth = turn.floor()
    part = turn - sixth
    mixed = torch.stack([v, v * (1 - s), v * (1 - s * part), v * (1 - s * (1 - part))])
    places = torch.tensor(_CHANNELS)[sixth.long() % 6].permute(2, 0, 1)
    return (mixed.gather(0, places) * 255).round().clamp(0, 255).to(torch.uint8)
