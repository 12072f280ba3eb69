"""How images are placed for evaluation and prediction: settings.

What a type can do is the same for every kind of task; which types a kind takes its `Kind` says.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator

from nasmvt.config import Config
from nasmvt.data.geometry import CUBIC, OPENCV, SMOOTH, Fit, Placement, Resampling, Size
from nasmvt.data.placements import CentreCrop, KeepRatio
from nasmvt.data.typed import by_type
from nasmvt.registry import Registry

Count = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=16)]
Square = tuple[Side, Side]


class Protocol(Config, ABC):
    """A way to place test images."""

    type: str
    """Which one."""

    @property
    def window(self) -> tuple[Size, Size] | None:
        """Size and stride of the windows that an image is read in; None: it is read whole."""
        return None

    @property
    def passes(self) -> int:
        """How many times an image is read."""
        return 1

    @property
    def once(self) -> bool:
        """Whether an image is read whole and once."""
        return self.window is None and self.passes == 1

    def single(self, canvas: Size) -> Placement:
        """Return the placement of an image where it is read once, as for a loss (arguments as of `views`)."""
        return self.views(canvas)[0]

    @abstractmethod
    def views(self, canvas: Size) -> tuple[Placement, ...]:
        """Return the placements that an image is read in.

        Args:
            canvas: `data.image_size`.
        """


class FitProtocol(Protocol):
    """Every image on one canvas of `image_size`: scaled to fit it, aspect kept, the rest is padding."""

    type: str = "fit"

    def views(self, canvas: Size) -> tuple[Placement, ...]:
        """Return the one placement."""
        return (Fit(size=canvas),)


class CentreCropProtocol(Protocol):
    """Classification: the image is scaled to cover `image_size` over `ratio`, of which the centre is cut out."""

    type: str = "centre_crop"

    ratio: Annotated[float, Field(gt=0.0, le=1.0)] = 0.875
    """Side of the crop divided by the shorter side of the scaled image."""

    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """How images are scaled, antialiased."""

    def views(self, canvas: Size) -> tuple[Placement, ...]:
        """Return the one placement."""
        resampling: Resampling = {"bicubic": CUBIC, "bilinear": SMOOTH}[self.interpolation]
        return (CentreCrop(size=canvas, ratio=self.ratio, resampling=resampling),)


class KeepRatioProtocol(Protocol):
    """Detection and segmentation: every image at a size of its own, the shorter side of a given length."""

    type: str = "keep_ratio"

    short: Side
    """Length in pixels of the shorter side."""

    long: Side | None = None
    """Greatest length of the longer side, for which the shorter one gives way; null: any."""

    least_short: Side | None = None
    """Segmentation: least length of the shorter side, at any of `ratios`; the longer one is then not bounded."""

    divisor: Count = 1
    """Sides that the network reads are multiples of it."""

    stretch: bool = False
    """Whether images are resized to multiples of `divisor`, after the first resize; else they are padded to them, with
    the mean colour at the right and the bottom."""

    truncate: bool = False
    """Whether the longer side is rounded down, as in DETR; else it is rounded."""

    antialias: bool = False
    """Whether images are smoothed where they are scaled down; published figures were measured without."""

    slide: Square | None = None
    """Segmentation: height and width of the windows that an image is read in, one number for a square; where they
    overlap logits are averaged. Null: it is read whole."""

    stride: tuple[Count, Count] | None = None
    """Steps in pixels from window to window, down and to the right, one number for both."""

    ratios: Annotated[tuple[Annotated[float, Field(gt=0.0)], ...], Field(min_length=1)] = (1.0,)
    """Segmentation: factors of `short` and `long`; the probabilities of all of them are averaged."""

    flip: bool = False
    """Segmentation: whether each of these is read mirrored, too, and averaged with the others."""

    @field_validator("slide", "stride", mode="before")
    @classmethod
    def _pair(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.slide is None) != (self.stride is None):
            raise ValueError("a sliding window has a size and a stride: set both 'slide' and 'stride', or neither")
        if self.slide and self.stride and (self.stride[0] > self.slide[0] or self.stride[1] > self.slide[1]):
            raise ValueError("sliding windows must cover the image: set 'stride' to no more than 'slide'")
        if self.long is not None and self.long < self.short:
            raise ValueError("the longer side can't be shorter than the shorter one: raise 'long' or lower 'short'")
        return self

    @property
    def window(self) -> tuple[Size, Size] | None:
        """Size and stride of the windows that an image is read in; None: it is read whole."""
        return (self.slide, self.stride) if self.slide and self.stride else None

    @property
    def passes(self) -> int:
        """How many times an image is read."""
        return len(self.ratios) * (2 if self.flip else 1)

    def views(self, canvas: Size) -> tuple[Placement, ...]:
        """Return a placement for every ratio, each mirrored too if so wished."""
        flips = (False, True) if self.flip else (False,)
        return tuple(self._view(ratio, flip) for ratio in self.ratios for flip in flips)

    def single(self, canvas: Size) -> Placement:
        """Return the placement at the ratio nearest to 1, not mirrored."""
        return self._view(min(self.ratios, key=lambda ratio: abs(ratio - 1)), flip=False)

    def _view(self, ratio: float, flip: bool) -> KeepRatio:
        short = max(int(self.short * ratio), 1)
        long: int | None = None if self.long is None else int(self.long * ratio)
        if self.least_short is not None:
            short, long = max(short, self.least_short), None
        return KeepRatio(
            short=short,
            long=long,
            divisor=self.divisor,
            stretch=self.stretch,
            truncate=self.truncate,
            flip=flip,
            resampling=SMOOTH if self.antialias else OPENCV,
        )


PROTOCOLS: Registry[type[Protocol]] = Registry("placement of test images")
"""The protocols by their type."""

PROTOCOLS.add("fit", FitProtocol, __name__)
PROTOCOLS.add("centre_crop", CentreCropProtocol, __name__)
PROTOCOLS.add("keep_ratio", KeepRatioProtocol, __name__)


AnyProtocol = Annotated[SerializeAsAny[Protocol], BeforeValidator(by_type(PROTOCOLS, "fit"))]
"""A protocol of any type; the type of plain values is `fit` unless they say otherwise."""
