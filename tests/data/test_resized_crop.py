"""Parts of images that are cut out and resized."""

import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode

from nasmvt.data.timm_transform import resized_crop


@pytest.mark.parametrize("box", [(3, 0, 0, 1), (0, 3, 1, 0), (9, 0, 0, 1)])
def test_a_side_that_rounds_to_no_pixel_has_one(box: tuple[int, int, int, int]) -> None:
    """Before: "shape '[3, 32, 32]' is invalid for input of size 0", for crops of images one pixel wide."""
    size = (1, 10) if box[3] else (10, 1)  # width and height
    found = resized_crop(Image.new("RGB", size, (9, 8, 7)), box, (32, 32), InterpolationMode.BICUBIC)
    assert torch.equal(found, torch.tensor([9, 8, 7], dtype=torch.uint8).view(3, 1, 1).expand(3, 32, 32))
