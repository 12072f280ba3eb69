"""Convolutional networks as families, for benchmarks and tests: ConvNeXt as docs/new-family.md has it, ResNet-50."""

import re
import types
from pathlib import Path
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from nasmvt.config import parse
from nasmvt.families import register
from nasmvt.space import Arch, SearchSpace

Count = Annotated[int, Field(ge=1)]
PAGE = Path(__file__).parents[1] / "docs" / "new-family.md"

RESNET50 = {
    "name": "resnet50",
    "family": "resnet",
    "choices": {
        **{f"width{stage}": [64 << stage, 96 << stage, 128 << stage] for stage in range(1, 5)},
        **{f"depth{stage}": [depth - 1, depth] for stage, depth in zip(range(1, 5), (3, 4, 6, 3), strict=True)},
        "hidden": [32, 48, 64],
    },
}
"""Widths of what the residual branches of a stage add up to, blocks of a stage, channels inside of a block."""

CONVNEXT_ATTO = {
    "name": "convnext_atto",
    "family": "my_convnext",
    "choices": {"width": [24, 32, 40], "depth3": [2, 4, 6]},
    "fixed": {"depth": 2},
}


class ResNet(nn.Module):
    """torchvision's bottleneck blocks: images (B, 3, H, W) to four maps (B, C_i, H_i, W_i).

    Args:
        widths: channels of each stage's map, a multiple of 4.
        depths: blocks of each stage.
        hidden: channels inside of a block, in 64ths of a quarter of the stage's width.
    """

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], hidden: int) -> None:
        super().__init__()
        self.strides, self.widths = (4, 8, 16, 32), widths
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        )
        self.stages = nn.ModuleList()
        inputs = 64
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            blocks = nn.Sequential()
            for block in range(depth):
                stride = 2 if block == 0 and stage > 0 else 1
                shortcut = None
                if block == 0:
                    shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
                blocks.append(Bottleneck(inputs, width // 4, stride, shortcut, base_width=hidden))
                inputs = width
            self.stages.append(blocks)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the map after each stage."""
        x, maps = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


@register(
    "resnet",
    choices=dict.fromkeys(RESNET50["choices"], Count),
    roles={"backbone.stages.*.*.conv*": "adaptive"},
)
def build(arch: Arch, *, kind: str, image_size: tuple[int, int]) -> ResNet:
    """Build a ResNet."""
    widths, depths = (tuple(arch[f"{name}{stage}"] for stage in range(1, 5)) for name in ("width", "depth"))
    return ResNet(widths, depths, arch["hidden"])


def resnet50() -> SearchSpace:
    """Return a space around ResNet-50."""
    return parse(SearchSpace, RESNET50, "resnet50")


def convnext_atto() -> SearchSpace:
    """Return a space below ConvNeXt Atto; its family is the example of the documentation."""
    example = types.ModuleType("my_convnext")
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    exec(compile(code[1], str(PAGE), "exec"), vars(example))
    return parse(SearchSpace, CONVNEXT_ATTO, "convnext_atto")
