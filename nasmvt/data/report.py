"""The contents of a data set, examined before anything is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from nasmvt.data.folders import some

Size = tuple[int, int]
"""Height and width in pixels."""

_EXAMPLES = 3


class Look(NamedTuple):
    """What can be told about one image without decoding it."""

    size: Size
    """As the image is stored."""
    animated: bool = False
    """Whether only the first of several frames is used."""
    target: Any = None
    """Its labels as in a sample; None where the data set counts the labels of all images in memory."""


@dataclass(frozen=True, kw_only=True)
class LabelCounts:
    """How often each class occurs, and irregularities of the labels."""

    unit: str
    """What is counted: "images", "objects" or "pixels"."""
    images: int
    """Number of images whose labels were counted."""
    classes: tuple[int, ...] = ()
    """Counts by class, in the order of the labels."""
    ignored: int = 0
    """Number that counts neither in the loss nor in the metric: crowds, ignored pixels."""
    odd: Mapping[str, int] = field(default_factory=dict)
    """Irregularities, and the number of objects or images that have them."""

    @property
    def ignored_share(self) -> float:
        """The ignored fraction of all labels, 0 to 1."""
        return self.ignored / max(self.ignored + sum(self.classes), 1)


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """One split of a data set."""

    images: int
    """Number of images used, including those that can't be read."""
    looked_at: int
    """Number of images whose sizes (and labels, unless in memory) were read."""
    names: tuple[str, ...]
    """The classes."""
    labels: LabelCounts
    smallest: Size | None
    """The size with the fewest pixels among the images looked at."""
    largest: Size | None
    left_out: Mapping[str, Sequence[str]]
    """Names of unused files, by reason (see `folders.LeftOut`)."""
    animated: int
    """Number of examined images of which only the first frame is used."""
    unreadable: tuple[str, ...] = ()
    """One sentence per image that can't be read."""
    tolerant: bool = False
    """Whether images that can't be read are skipped."""

    @property
    def refusal(self) -> str | None:
        """Why these data can't be used, if they can't."""
        return self.unreadable[0] if self.unreadable and not self.tolerant else None

    @property
    def seen(self) -> str:
        """Clause on how many images the label counts are from, if not from all."""
        return "" if self.labels.images == self.images else f" in the {self.labels.images} images looked at"

    def warnings(self) -> list[str]:
        """Return possible problems, one clause each."""
        found, counts = [], self.labels
        absent = [name for name, count in zip(self.names, counts.classes, strict=False) if not count]
        if counts.classes and len(absent) == len(counts.classes):
            found.append(f"there are no {counts.unit} of any class{self.seen}")
        elif absent:
            found.append(f"there are no {counts.unit} of {some(absent, 10)}{self.seen}")
        if len(counts.classes) - len(absent) == 1 < len(counts.classes):
            present = next(name for name in self.names if name not in absent)
            found.append(f"{present} is the only class{self.seen}: there is nothing to tell apart")
        found += [f"{number} {what}{self.seen}" for what, number in counts.odd.items() if number]
        if self.animated:
            found.append(f"{self.animated} of {self.looked_at} images looked at are animated: the first frame is used")
        if self.unreadable:
            found.append(f"{len(self.unreadable)} images can't be read and are skipped ({self.unreadable[0]})")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "images": self.images,
            "looked_at": self.looked_at,
            "left_out": {
                reason: {"count": len(names), "examples": list(names[:_EXAMPLES])}
                for reason, names in self.left_out.items()
            },
            "unit": self.labels.unit,
            "labels_of_images": self.labels.images,
            "classes": dict(zip(self.names, self.labels.classes, strict=False)),
            "ignored": self.labels.ignored,
            "smallest": self.smallest,
            "largest": self.largest,
            "animated": self.animated,
            "unreadable": list(self.unreadable),
            "warnings": self.warnings(),
        }


def count_indices(labels: np.ndarray, classes: int) -> tuple[int, ...]:
    """Return how often each of the class indices 0 to `classes` - 1 occurs."""
    return tuple(np.bincount(labels, minlength=classes).tolist())
