"""The schema of an exported folder's config.json: everything needed to build the networks and prepare their inputs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict

from nasmvt.config import Config, parse
from nasmvt.data.protocols import PROTOCOLS, AnyProtocol, FitProtocol
from nasmvt.data.types import DataInfo
from nasmvt.space import SearchSpace
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.task import Task

FORMAT: Literal[3] = 3

Triple = tuple[float, float, float]

_DESCRIBED = frozenset(
    {
        *("format", "train_split", "val_split", "classes", "orientation", "masks", "labels", "ignore"),
        *("image_suffix", "mask_suffix", "val_images", "split", "limit"),
    }
)
"""The data settings that determine which images a model is measured on: neither their location nor the training."""


class Preprocessing(Config):
    """How an image becomes the input of a network."""

    placement: Annotated[str, AfterValidator(PROTOCOLS.check)] = "fit"
    """How the image is scaled: for `fit`, to the largest size that fits the canvas, keeping its aspect ratio."""
    test: AnyProtocol = FitProtocol()
    """The settings of the placement (see `nasmvt.data.protocols`)."""
    canvas: tuple[int, int]
    """Height and width in pixels of the canvas, or of the image that costs are stated for."""
    position: Literal["top left"] = "top left"
    """Position of the scaled image on the canvas."""
    padding: Literal["mean"] = "mean"
    """Colour of the rest of the canvas: the mean colour, rounded to bytes."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True
    orientation: Literal["upright"] = "upright"
    """Files are turned by their EXIF orientation first."""
    channels: Literal["RGB"] = "RGB"
    divisor: Literal[255] = 255
    """Pixels are divided by it, then `mean` is subtracted and the result divided by `std`."""
    mean: Triple
    std: Triple


class ExportedSettings(Config):
    """The settings of a task that its experiment had, without those of training and of preprocessing."""

    head: dict[str, Any]
    """Settings of the head, its `type` among them."""
    eval_batch_size: int = 16
    """Images per evaluation step; does not affect the metrics."""
    data: dict[str, Any]
    """Settings of the task's data set, except its location."""


class ExportedTask(Config):
    """One task."""

    kind: str
    classes: tuple[str, ...]
    """Names of the classes in the order of their labels."""
    has_masks: bool = False
    things: int = 0
    """Panoptic segmentation: number of classes that are things, which come first."""
    category_ids: tuple[int, ...] = ()
    """Panoptic segmentation: the id of each class in the files of the data set."""
    preprocessing: Preprocessing
    config: ExportedSettings

    @classmethod
    def of(cls, task: Task) -> "ExportedTask":
        """Describe a task."""
        data = task.config.data
        resampling = data.test_placement.place(data.image_size).resampling
        return cls(
            **vars(task.info),
            preprocessing=Preprocessing(
                placement=data.test.type,
                test=data.test,
                canvas=data.image_size,
                interpolation=resampling.images.value,
                antialias=resampling.antialias,
                mean=data.mean,
                std=data.std,
            ),
            config=ExportedSettings(
                head=task.config.head.model_dump(mode="json"),
                eval_batch_size=task.config.eval_batch_size,
                data=data.model_dump(mode="json", include=set(_DESCRIBED)),
            ),
        )

    def settings(self) -> dict[str, Any]:
        """Return the settings of the task as plain values."""
        shown = self.preprocessing
        test = shown.test.model_dump(mode="json")
        placed = {"image_size": shown.canvas, "mean": shown.mean, "std": shown.std, "test": test}
        return {
            "kind": self.kind,
            "head": self.config.head,
            "eval_batch_size": self.config.eval_batch_size,
            "data": {**self.config.data, **placed},
        }

    def task(self, name: str, source: str) -> Task:
        """Return the task; no data set is opened.

        Raises:
            UserError: if a setting breaks a rule; names `source`.
        """
        info = DataInfo(
            kind=self.kind,
            classes=self.classes,
            has_masks=self.has_masks,
            things=self.things,
            category_ids=self.category_ids,
        )
        return Task(name=name, config=parse(TaskConfig, self.settings(), f"{source}, task {name}"), info=info)


class ExportConfig(Config):
    """The content of config.json."""

    model_config = ConfigDict(extra="ignore")

    format: Literal[3] = FORMAT
    nasmvt: str
    """The version that wrote it."""
    seed: int
    """Of the run; the built-in data set, `limit` and `split` depend on it."""
    space: SearchSpace
    arch: dict[str, Any]
    sharing: dict[str, tuple[str, ...]]
    parameters: dict[str, Any]
    tasks: dict[str, ExportedTask]
    metrics: dict[str, Any]
    """In percent by task; `split` is what they were measured on."""
    int8: dict[str, Any] | None = None
    """By task, what quantised files lose on val: `float` and `int8` figures in percent, `bytes`, `kept_in_float`."""
    origin: str | None = None
    """Sentences on how the model was made; None: by nasmvt's own training and search."""

    def make_tasks(self, source: str) -> dict[str, Task]:
        """Return the tasks; no data set is opened.

        Raises:
            UserError: if a setting breaks a rule; names `source`.
        """
        return {name: task.task(name, source) for name, task in self.tasks.items()}


Roots = Mapping[str, Path]
"""Where the data of a task are."""
