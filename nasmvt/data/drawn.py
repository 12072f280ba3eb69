"""Data sets that are drawn on the fly, for every kind of task: an image is a function of (seed, split, index) alone."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from nasmvt.data.dataset import Dataset, Request, class_names, text_digest
from nasmvt.data.masks import ObjectMasks
from nasmvt.data.panoptic import Segment, Segments
from nasmvt.data.types import DataInfo, Sample
from nasmvt.seeding import derive_seed

STUFF = ("plain", "stripes")
"""Panoptic segmentation: the classes of the ground, after those of the things."""


@dataclass(frozen=True)
class Thing:
    """A drawn object."""

    label: int
    mask: np.ndarray
    """(H, W) bool: the visible part."""


@dataclass(frozen=True)
class Scene:
    """A drawn image with all that can be asked about it."""

    canvas: np.ndarray
    """(H, W, 3) float32, in 0..255 where it is not clipped."""
    things: list[Thing]
    striped: np.ndarray
    """(H, W) bool: where the ground is the second kind of stuff."""


class DrawnDataset(Dataset):
    """Generated images with labels for one kind of task.

    Classification has the label of the first thing. Detection: boxes are tight around the visible part of a thing and
    every thing has a mask. Segmentation: every pixel has a label, the background's is 0. Panoptic segmentation: the
    two parts of the ground are stuff.
    """

    name: ClassVar[str]
    """The format's name; the images depend on it."""
    things: ClassVar[tuple[str, ...]]
    """The classes; segmentation puts "background" before them."""

    def __init__(self, request: Request) -> None:
        config, kind = request.config, request.kind
        self._kind = kind
        self._split = request.split
        self._seed = request.seed
        self._size = config.image_size
        self._length = config.train_images if request.split == "train" else config.val_images
        things = self.things
        names = {"segmentation": ("background", *things), "panoptic": (*things, *STUFF)}.get(kind, things)
        self.info = DataInfo(kind=kind, classes=class_names(config, names), **self._of_kind(kind))

    @abstractmethod
    def draw(self, random: np.random.Generator, size: tuple[int, int], kind: str) -> Scene:
        """Draw a scene of a height and width for a kind of task; for classification it has one thing."""

    def __len__(self) -> int:
        """Return the number of images."""
        return self._length

    def __getitem__(self, index: int) -> Sample:
        """Draw one image and return it with its labels."""
        if not 0 <= index < self._length:
            raise IndexError(f"there is no image {index} among {self._length}")
        random = np.random.default_rng(derive_seed(self.name, self._seed, self._split, index))
        scene = self.draw(random, self._size, self._kind)
        picture = Image.fromarray(scene.canvas.clip(0, 255).astype(np.uint8))
        return Sample(id=f"{self._split}/{index}", image=picture, target=self._target(scene))

    def digest(self) -> str:
        """Return a digest of the parameters of the images."""
        return text_digest(self.name, self._kind, self._split, str(self._seed), str(self._size), str(self._length))

    def _of_kind(self, kind: str) -> Mapping[str, Any]:
        """Return what a network has to know of a kind's data beside the classes."""
        things, classes = len(self.things), len(self.things) + len(STUFF)
        panoptic = {"has_masks": True, "things": things, "category_ids": tuple(range(1, classes + 1))}
        known: Mapping[str, Mapping[str, Any]] = {"detection": {"has_masks": True}, "panoptic": panoptic}
        return known.get(kind, {})

    def _target(self, scene: Scene) -> Any:
        """Return the target of the kind; that of kinds not known here is detection's."""
        targets: Mapping[str, Callable[[Scene], Any]] = {
            "classification": lambda scene: scene.things[0].label,
            "segmentation": _label_map,
            "panoptic": lambda scene: _panoptic(scene, len(self.things)),
        }
        return targets.get(self._kind, _objects)(scene)


def _objects(scene: Scene) -> dict[str, Any]:
    """Return the target of detection."""
    height, width = scene.striped.shape
    return {
        "boxes": torch.tensor([_bounds(thing.mask) for thing in scene.things], dtype=torch.float32).view(-1, 4),
        "labels": torch.tensor([thing.label for thing in scene.things], dtype=torch.int64),
        "crowd": torch.zeros(len(scene.things), dtype=torch.bool),
        "masks": ObjectMasks((height, width), [thing.mask for thing in scene.things]),
    }


def _label_map(scene: Scene) -> torch.Tensor:
    """Return the target of segmentation."""
    labels = np.zeros(scene.striped.shape, dtype=np.uint8)
    for thing in scene.things:
        labels[thing.mask] = thing.label + 1
    return torch.from_numpy(labels)


def _panoptic(scene: Scene, things: int) -> Segments:
    """Return the target of panoptic segmentation."""
    ids = np.where(scene.striped, 2, 1).astype(np.int32)
    for number, thing in enumerate(scene.things, start=3):
        ids[thing.mask] = number
    labels = [things, things + 1, *(thing.label for thing in scene.things)]
    segments = [
        Segment(id=number, label=label, thing=label < things, area=int((ids == number).sum()))
        for number, label in enumerate(labels, start=1)
    ]
    return Segments.of(ids, [segment for segment in segments if segment.area])


def _bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
