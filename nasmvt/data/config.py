"""Settings of the data of one task."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from nasmvt.config import Config
from nasmvt.data.formats import FORMATS
from nasmvt.data.geometry import Placement, Size
from nasmvt.data.protocols import AnyProtocol, FitProtocol
from nasmvt.data.train_placements import AnyTrainPlacement, FitTraining

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Triple = tuple[float, float, float]


class AugmentationConfig(Config):
    """Random augmentation of training images; never applied in evaluation."""

    hflip: Probability = 0.5
    """Probability of a horizontal flip."""

    repeats: Annotated[int, Field(ge=1)] = 1
    """How often an image occurs in a row, each time with other random choices (repeated augmentation,
    arXiv:1901.09335): a batch then holds as many times fewer images, and an epoch takes as many times more steps."""

    scale: tuple[float, float] = (0.5, 2.0)
    """Detection and segmentation: range of the random scale, as a factor of the scale at which the
    image just fits the canvas. Images larger than the canvas are cropped at random, smaller ones are
    padded with the mean colour on the right and at the bottom. (1, 1) turns it off."""

    color_jitter: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Strength of the random change of brightness, contrast and saturation; 0 turns it off. In
    classification it has no effect if `auto_augment` is on (timm's rule)."""

    photometric: bool = False
    """Detection and segmentation: whether brightness, contrast, saturation and hue are changed at random as in SSD and
    mmsegmentation, each for half of the images."""

    auto_augment: str | None = "rand-m9-mstd0.5"
    """Classification: timm's policy string (RandAugment of magnitude 9), or null for none."""

    crop_scale: Annotated[float, Field(ge=0.08, le=1.0)] = 0.08
    """Classification: minimum fraction of the image's area in a random crop; the maximum is 1."""

    erasing: Probability = 0.25
    """Classification: probability of erasing one random rectangle with noise."""

    mixup: Annotated[float, Field(ge=0.0)] = 0.8
    """Classification: alpha of mixup; 0 turns it off. With mixup or cutmix on, targets are soft."""

    cutmix: Annotated[float, Field(ge=0.0)] = 1.0
    """Classification: alpha of cutmix; 0 turns it off. With both on, each batch draws one of them."""

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, scale: tuple[float, float]) -> tuple[float, float]:
        low, high = scale
        if not 0 < low <= high:
            raise ValueError("scale must be two factors (low, high) with 0 < low <= high")
        return scale


class DataConfig(Config):
    """Where the images of one task come from and how they become batches."""

    format: Annotated[str, AfterValidator(FORMATS.check)] = "shapes"
    """Layout of the files: `shapes`, `shapes_hard` (drawn on the fly, any task), `imagefolder` (classification),
    `coco`, `yolo` (detection), `ade20k`, `cityscapes` (segmentation), `voc` (both), `coco_panoptic` (panoptic); or
    `module:name` for one that a module of yours registers."""

    root: Path | None = None
    """Folder of the data set; required for every format that reads files."""

    train_split: str = "train"
    """Name of the training split in the data set's folders and files."""

    val_split: str = "val"
    """Name of the validation split; used only to evaluate final models."""

    image_size: tuple[int, int] = (64, 64)
    """Height and width in pixels of the canvas that images are put on, unless `train` or `test` say otherwise,
    and of the nominal image that position tables and counts assume; one number means a square."""

    classes: tuple[str, ...] | None = None
    """Names of the classes in the order of their labels: the names found in the files, in another order, or new
    names for them, one by one. For label maps without names it also gives the number of classes."""

    orientation: Literal["upright", "stored"] | None = None
    """On which pixels boxes, masks and label maps were drawn, where a photo's EXIF orientation turns it: on the
    upright image, as viewers show it, or on the pixels as they are stored. Null reads it from the size that the
    annotations state, and assumes upright where that is ambiguous. Images are shown upright to the network."""

    masks: bool | None = None
    """Detection: whether the masks of objects are read. True refuses data in which an object has none; null reads them
    where every object of the training split has one, and warns where only some have one."""

    labels: dict[int | str, str] | None = None
    """Segmentation: the class of each value of a label map, such as `{0: background, 255: object}`, or of each colour,
    such as `{"#000000": background, "#ff0000": object}`. Null: values are consecutive, from 0 on if 0 is not ignored,
    else from 1 on."""

    ignore: tuple[int | str, ...] | None = None
    """Segmentation: values, colours or class names that count neither in the loss nor in the metric. Null: 0 and 255,
    unless `labels` names them."""

    image_suffix: str = ""
    """Segmentation: suffix of the images' names, before the dot, that the label maps' names lack, such as
    `_leftImg8bit`. Images without it are left out."""

    mask_suffix: str = ".png"
    """Segmentation: what a label map's name has in place of that suffix and the image's extension, such as
    `_gtFine_labelIds.png`."""

    token_labels: Path | None = None
    """Classification: folder of token labels for the training images, `<class folder>/<name up to the first dot>.pt`
    each, as published for ImageNet with "All tokens matter"; null: none. Needs a head that is trained on them,
    `class_attention`, and neither mixup nor cutmix."""

    train_images: Annotated[int, Field(ge=1)] = 512
    """Number of training images drawn; `shapes` and `shapes_hard` only."""

    val_images: Annotated[int, Field(ge=1)] = 128
    """Number of validation images drawn; `shapes` and `shapes_hard` only."""

    split: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Data without a validation split: the fraction of the training split that becomes it, chosen by the seed. An image
    folder may then hold its class folders directly. Null: the data have both."""

    limit: Annotated[int, Field(ge=1)] | None = None
    """Use only this many images of each split, chosen by the seed; null uses all."""

    search_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Fraction of the training split that is set aside to compare candidates in the search."""

    skip_empty: bool = False
    """Detection, panoptic: leave images without objects, or things, out of the training, as mmdetection does."""

    skip_unreadable: bool = False
    """Skip images that can't be decoded (and log them) instead of stopping."""

    cache: bool = False
    """Keep every image with its labels in memory once it was read, decoded and at its full size: for data that fit, in
    every process that reads them. The batches are the same."""

    mean: Triple = (0.485, 0.456, 0.406)
    """Mean of red, green and blue in 0..1 (ImageNet's), for normalisation; also the colour of padding."""

    std: Triple = (0.229, 0.224, 0.225)
    """Standard deviation of red, green and blue in 0..1 (ImageNet's)."""

    workers: Annotated[int, Field(ge=0)] = 0
    """Number of processes that prepare batches; 0: the training process itself does. The batches are the same."""

    augmentation: AugmentationConfig = AugmentationConfig()
    """Random augmentation of training images."""

    train: AnyTrainPlacement = FitTraining()
    """How training images are placed: `fit`, `short_side` or `range_crop` (detection, segmentation)."""

    test: AnyProtocol = FitProtocol()
    """How images are placed for evaluation and prediction: `fit`, `centre_crop` (classification) or `keep_ratio`
    (detection, segmentation)."""

    @field_validator("image_size", mode="before")
    @classmethod
    def _square(cls, size: Any) -> Any:
        return (size, size) if isinstance(size, int) and not isinstance(size, bool) else size

    @field_validator("image_size")
    @classmethod
    def _check_size(cls, size: tuple[int, int]) -> tuple[int, int]:
        if min(size) < 16:
            raise ValueError("image_size must be at least 16 pixels high and wide")
        return size

    @field_validator("classes")
    @classmethod
    def _check_classes(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes is not None and (not classes or len(set(classes)) < len(classes)):
            raise ValueError("classes must be one or more names, each once")
        return classes

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, labels: dict[int | str, str] | None) -> dict[int | str, str] | None:
        if labels is None:
            return None
        values = {_pixel_value(value): name for value, name in labels.items()}
        if len({isinstance(value, str) for value in values}) != 1 or len(values) < len(labels):
            raise ValueError("labels must give classes to values, or to colours, each once")
        return values

    @field_validator("ignore")
    @classmethod
    def _check_ignore(cls, ignore: tuple[int | str, ...] | None) -> tuple[int | str, ...] | None:
        for value in ignore or ():
            if isinstance(value, int) or value.startswith("#"):
                _pixel_value(value)
        return ignore

    @field_validator("mean")
    @classmethod
    def _check_mean(cls, mean: Triple) -> Triple:
        if not all(0 <= value <= 1 for value in mean):
            raise ValueError("mean must be three values in 0..1 (divide by 255)")
        return mean

    @field_validator("std")
    @classmethod
    def _check_std(cls, std: Triple) -> Triple:
        if not all(0 < value <= 1 for value in std):
            raise ValueError("std must be three values above 0 and at most 1 (divide by 255)")
        return std

    @model_validator(mode="after")
    def _check_token_labels(self) -> Self:
        if self.token_labels is not None and (self.augmentation.mixup or self.augmentation.cutmix):
            raise ValueError(
                "token_labels say what is where in one image, but mixup or cutmix is on: set augmentation.mixup and "
                "augmentation.cutmix to 0"
            )
        return self

    def at(self, size: Size) -> "DataConfig":
        """Return the settings with another `image_size`."""
        return self if size == self.image_size else self.model_copy(update={"image_size": size})

    @property
    def train_placement(self) -> Placement:
        """How training images are put on their canvas."""
        return self.train.placement(self.image_size, self.augmentation.scale, self.augmentation.hflip)

    @property
    def test_placement(self) -> Placement:
        """How an image is put on its canvas for evaluation, where it is read once."""
        return self.test.single(self.image_size)

    @property
    def test_placements(self) -> tuple[Placement, ...]:
        """How an image is put on its canvases for evaluation and prediction; it may be read several times."""
        return self.test.views(self.image_size)

    @property
    def nominal_size(self) -> tuple[int, int]:
        """Height and width of the image that position tables and counts assume."""
        return self.image_size


def _pixel_value(value: int | str) -> int | str:
    """Return a value of a label map: a number (JSON writes it as text) or a colour in lower case."""
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        return value.lower()
    if isinstance(value, str) and not re.fullmatch("[0-9]{1,5}", value):
        raise ValueError(f'a value of a label map is a number, or a colour such as "#ff0000", but not {value!r}')
    number = int(value)
    if not 0 <= number < 2**16:
        raise ValueError(f"a value of a label map lies in 0..65535, but {number} does not")
    return number
