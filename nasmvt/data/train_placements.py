"""How images are placed for training: settings."""

from abc import ABC, abstractmethod
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator

from nasmvt.config import Config
from nasmvt.data.geometry import OPENCV, SMOOTH, Fit, Placement, Size
from nasmvt.data.placements import RandomCrop, RandomShortSide
from nasmvt.data.typed import by_type
from nasmvt.registry import Registry

Count = Annotated[int, Field(ge=1)]
Factor = Annotated[float, Field(gt=0.0)]
Side = Annotated[int, Field(ge=16)]


class TrainPlacement(Config, ABC):
    """A way to place training images."""

    type: str
    """Which one."""

    @abstractmethod
    def placement(self, canvas: Size, scale: tuple[float, float], hflip: float) -> Placement:
        """Return the placement.

        Args:
            canvas: `data.image_size`.
            scale: `data.augmentation.scale`.
            hflip: `data.augmentation.hflip`.
        """


class FitTraining(TrainPlacement):
    """Every image on one canvas of `image_size`: scaled to fit it times a factor of `augmentation.scale`."""

    type: str = "fit"

    def placement(self, canvas: Size, scale: tuple[float, float], hflip: float) -> Placement:
        """Return the placement."""
        return Fit(size=canvas, scale=scale, hflip=hflip)


class ShortSideTraining(TrainPlacement):
    """Detection and segmentation: the shorter side becomes one of several lengths; a batch is padded to its largest
    image. With `crop_shorts` half of the images are cropped before, as in DETR."""

    type: str = "short_side"

    shorts: Annotated[tuple[Side, ...], Field(min_length=1)]
    """Lengths in pixels of the shorter side, of which one is drawn."""

    between: bool = False
    """Whether any whole number from the least to the greatest of `shorts` is drawn."""

    long: Side | None = 1333
    """Greatest length of the longer side, for which the shorter one gives way; null: any."""

    divisor: Count = 32
    """Sides of the canvas are multiples of it, as far as images are smaller padded with the mean colour."""

    crop_shorts: tuple[Side, ...] = ()
    """Lengths of the shorter side before a crop, which half of the images get; none: nothing is cropped."""

    crop_long: Side | None = None
    """Greatest length of the longer side before a crop; null: any."""

    crop_sides: tuple[Side, Side] = (384, 600)
    """Least and greatest height and width of a crop."""

    truncate: bool = False
    """Whether the longer side is rounded down, as in DETR; else it is rounded."""

    antialias: bool = False
    """Whether images are smoothed where they are scaled down; published trainings don't."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.crop_sides[0] > self.crop_sides[1]:
            raise ValueError("crop_sides must be the least and the greatest side of a crop: exchange them")
        return self

    def placement(self, canvas: Size, scale: tuple[float, float], hflip: float) -> Placement:
        """Return the placement."""
        return RandomShortSide(
            shorts=range(min(self.shorts), max(self.shorts) + 1) if self.between else self.shorts,
            long=self.long,
            divisor=self.divisor,
            crop_shorts=self.crop_shorts,
            crop_long=self.crop_long,
            crop_sides=self.crop_sides,
            truncate=self.truncate,
            hflip=hflip,
            resampling=SMOOTH if self.antialias else OPENCV,
        )


class RangeCropTraining(TrainPlacement):
    """Detection and segmentation: scaled by a random factor, then a random crop, as mmsegmentation trains."""

    type: str = "range_crop"

    short: Side = 512
    """Length in pixels of the shorter side at a factor of 1."""

    long: Side | None = 2048
    """Greatest length of the longer side at a factor of 1; null: any."""

    factor: tuple[Factor, Factor] = (0.5, 2.0)
    """Range of the factor of `short` and `long`."""

    crop: tuple[Side, Side] = (512, 512)
    """Height and width of the crop, one number for a square; what is smaller is padded with the mean colour, and does
    not count."""

    max_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.75
    """Segmentation: another crop is drawn, ten times at most, while there is but one class in it or one class has this
    part of the pixels that count; 1 takes every crop."""

    antialias: bool = False
    """Whether images are smoothed where they are scaled down; published trainings don't."""

    @field_validator("crop", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.factor[0] > self.factor[1]:
            raise ValueError("factor must be the least and the greatest factor: exchange them")
        return self

    def placement(self, canvas: Size, scale: tuple[float, float], hflip: float) -> Placement:
        """Return the placement."""
        return RandomCrop(
            size=self.crop,
            short=self.short,
            long=self.long,
            factor=self.factor,
            most=self.max_share,
            hflip=hflip,
            resampling=SMOOTH if self.antialias else OPENCV,
        )


TRAIN_PLACEMENTS: Registry[type[TrainPlacement]] = Registry("placement of training images")
"""The placements by their type."""

TRAIN_PLACEMENTS.add("fit", FitTraining, __name__)
TRAIN_PLACEMENTS.add("short_side", ShortSideTraining, __name__)
TRAIN_PLACEMENTS.add("range_crop", RangeCropTraining, __name__)

AnyTrainPlacement = Annotated[SerializeAsAny[TrainPlacement], BeforeValidator(by_type(TRAIN_PLACEMENTS, "fit"))]
"""A placement of any type; the type of plain values is `fit` unless they say otherwise."""
