"""The base of the networks of all tasks. They know nothing about archs, stores or searches.

Shapes: B batch, H canvas height, W canvas width.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from nasmvt.data.types import ImageInfo
from nasmvt.errors import UserError
from nasmvt.heads.sizes import Sizes
from nasmvt.tasks.heads import HeadParts
from nasmvt.tasks.lessons import Features, Learned
from nasmvt.tasks.modes import evaluating

Triple = tuple[float, float, float]


class Prediction(ABC):
    """A network's prediction for one image."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the prediction as plain values."""

    @abstractmethod
    def draw(self, image: Tensor, min_score: float) -> Image.Image:
        """Draw it on its image, uint8 (3, H, W), without objects below a score."""

    def object_scores(self) -> list[float]:
        """Return the scores, best first, of the objects that `draw` may leave out; by default there are none."""
        return []

    def images(self) -> dict[str, Image.Image]:
        """Return the parts of the prediction that are images, by name, such as a label map; by default none."""
        return {}


class TaskMetric(ABC):
    """A metric of a data set, accumulated batch by batch; the division into batches has no influence."""

    primary: str
    """The value that enters the T-score."""
    parts: ClassVar[Mapping[str, str]] = {}
    """The part of predictions that only some values need, by value; no part is named that the primary one needs."""

    @abstractmethod
    def update(self, predictions: Sequence[Any], targets: Any) -> None:
        """Add the predictions of a batch and its targets, in the pixels of the original images."""

    @abstractmethod
    def add(self, other: Any) -> None:
        """Add what another metric of the same class and data set was updated with, of other images."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return the values for all images so far, in percent."""


class TaskNetwork(nn.Module, ABC):
    """Backbone, neck and head of one task; a kind adds the calls of its head and its predictions.

    Args:
        backbone: a module that turns images (B, 3, H, W) into a tuple of maps and declares their `strides` and
            `widths`, and `channels_last` if it is faster when channels are the last dimension in memory, or
            `trains_channels_last` if only its training is to be so: the rounding of its predictions then does not
            depend on how many images are in a batch.
        parts: neck, head and optionally an auxiliary head (see `HeadParts`).
        classes: class names; a label is an index into them.
        mean: mean of red, green and blue in 0..1, by which images are normalised.
        std: standard deviation of red, green and blue in 0..1.
    """

    static_inputs: ClassVar[tuple[str, ...]] = ("images",)
    """Which arguments of `static` it reads."""

    def __init__(
        self, backbone: nn.Module, parts: HeadParts, *, classes: Sequence[str], mean: Triple, std: Triple
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = parts.neck
        self.head: Any = parts.head
        self.auxiliary: Any = parts.auxiliary
        self.channels_last = bool(getattr(backbone, "channels_last", False))
        self.classes = tuple(classes)
        self.mean, self.std = mean, std

    @property
    def trains_channels_last(self) -> bool:
        """Whether a training computes with channels as the last dimension in memory, unless it says otherwise."""
        return self.channels_last or bool(getattr(self.backbone, "trains_channels_last", False))

    @contextmanager
    def laid_out(self, channels_last: bool) -> Iterator[None]:
        """Compute with channels as the last dimension in memory inside the block, or not."""
        before = self.channels_last
        self.channels_last = channels_last
        try:
            yield
        finally:
            self.channels_last = before

    def strip(self, parts: Collection[str]) -> None:
        """Drop what serves only losses, or only these parts of predictions (see `TaskMetric.parts`).

        Everything else is predicted as before, bit for bit. A head that can leave out a part has `strip(parts)`, too.
        """
        self.auxiliary = None
        if hasattr(self.head, "strip"):
            self.head.strip(parts)

    def normalize(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, H, W), uint8 in 0..255 or float in 0..1, into what the backbone reads."""
        if not images.is_floating_point():
            images = images.float() / 255
        channels = zip(images.unbind(1), self.mean, self.std, strict=True)
        return torch.stack([(channel - mean) / std for channel, mean, std in channels], dim=1)

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Turn images (B, 3, H, W) into the maps that the head reads."""
        return self._maps(self.normalize(images))

    def _maps(self, images: Tensor, **more: Any) -> tuple[Tensor, ...]:
        """Turn normalised images into maps; `more` is for backbones that take more than images."""
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        maps: tuple[Tensor, ...] = self.neck(self.backbone(images, **more))
        return maps

    @abstractmethod
    def forward(self, images: Tensor) -> Any:
        """Turn images (B, 3, H, W) into the head's raw outputs, in evaluation mode."""

    def workload(self, images: Tensor) -> None:
        """Perform the largest possible work of evaluating images (B, 3, H, W), for counting and timing.

        Unlike `forward` it reads no values, so it also runs on `meta`, and its work is constant.
        """
        self.head.workload(self.maps(images))

    def loss(self, images: Tensor, targets: Any, infos: Sequence[ImageInfo] | None = None) -> dict[str, Tensor]:
        """Return named scalars whose sum is the training loss; needs training mode.

        Args:
            images: (B, 3, H, W), uint8 in 0..255 or floating point in 0..1.
            targets: as in a training `Batch`, in canvas pixels.
            infos: which part of the canvas each image covers; None: all of it.
        """
        return self.learn(images, targets, infos).losses

    def learn(self, images: Tensor, targets: Any, infos: Sequence[ImageInfo] | None = None) -> Learned:
        """Return the losses, and from the same pass what the network can teach; the arguments are those of `loss`."""
        maps, sizes = self.maps(images), valid_sizes(images, infos)
        learned = self._learn(maps, targets, sizes)
        if self.auxiliary is not None:
            learned = learned._replace(losses={**learned.losses, **self.auxiliary.losses(maps, targets, sizes)})
        return learned

    def _learn(self, maps: tuple[Tensor, ...], targets: Any, sizes: Sizes) -> Learned:
        """Implement `learn` without the auxiliary head."""
        return Learned(self.head.losses(maps, targets, sizes), Features(maps, sizes))

    @property
    def teaches_maps(self) -> bool:
        """Whether the lesson is the maps after the neck, which then have to be as wide in all archs."""
        return True

    def predict(self, images: Tensor, infos: Sequence[ImageInfo] | None = None) -> list[Any]:
        """Predict in evaluation mode, without gradients; the network's mode is restored.

        Args:
            images: (B, 3, H, W), uint8 in 0..255 or floating point in 0..1.
            infos: the place of each image on the canvas; predictions are then in the pixels of the original
                images, without padding. None: they are in canvas pixels. Images whose own canvases are equal are
                computed together, without what the batch is padded with beyond them.
        """
        canvas = _canvas(images)
        infos = whole_infos(images) if infos is None else infos
        together: dict[tuple[int, int], list[int]] = {}
        for place, info in enumerate(infos):
            together.setdefault(info.canvas or canvas, []).append(place)
        predictions: dict[int, Any] = {}
        with evaluating(self), torch.inference_mode():
            for (height, width), places in together.items():
                part = images[places, :, :height, :width]
                predictions.update(zip(places, self._predict(part, [infos[i] for i in places]), strict=True))
        return [predictions[place] for place in range(len(images))]

    def _predict(self, images: Tensor, infos: Sequence[ImageInfo]) -> list[Any]:
        """Implement `predict`, in evaluation mode."""
        return self.read(self.outputs(images, infos), infos, _canvas(images))

    def outputs(self, images: Tensor, infos: Sequence[ImageInfo]) -> Mapping[str, Tensor]:
        """Return what `read` makes predictions of, in evaluation mode, of images (B, 3, H, W) as for `predict`."""
        return self.static(self.normalize(images), _tensor_of(infos, images.device))

    def static(self, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """Return named tensors whose shapes follow from those of the arguments: what another runtime computes.

        Args:
            images: (B, 3, H, W) float32, normalised (see `normalize`).
            sizes: (B, 2) int64, height and width of each image on the canvas.

        Raises:
            UserError: if the kind or the head has no such form.
        """
        raise UserError(f"{type(self).__name__} can't be exported for other runtimes: give it `static` and `read`")

    def static_arguments(self, images: Tensor, infos: Sequence[ImageInfo]) -> dict[str, Tensor]:
        """Return the arguments of `static` that the network reads, by name, of images (B, 3, H, W) as for `predict`."""
        given = {"images": self.normalize(images), "sizes": _tensor_of(infos, images.device)}
        return {name: given[name] for name in self.static_inputs}

    def read(self, outputs: Mapping[str, Tensor], infos: Sequence[ImageInfo], canvas: tuple[int, int]) -> list[Any]:
        """Turn what `static` returns, wherever it was computed, into predictions.

        Args:
            outputs: the tensors.
            infos: the place of each image on the canvas.
            canvas: its height and width.

        Raises:
            UserError: if the kind has no such form.
        """
        raise UserError(f"{type(self).__name__} can't be exported for other runtimes: give it `static` and `read`")

    def disagreement(self, outputs: Mapping[str, Tensor], images: Tensor, infos: Sequence[ImageInfo]) -> float:
        """Return by how much what another runtime computed differs from this network.

        This is the largest difference over the largest value, of the worst output; a kind may compare otherwise.

        Args:
            outputs: the runtime's.
            images: (B, 3, H, W), as for `predict`.
            infos: the place of each image on the canvas.
        """
        with evaluating(self), torch.inference_mode():
            expected = self.outputs(images, infos)
        return max(
            float((outputs[name] - tensor).abs().max() / tensor.abs().max().clamp(min=1e-12))
            for name, tensor in expected.items()
        )


def whole_infos(images: Tensor) -> list[ImageInfo]:
    """Return the infos of images (B, 3, H, W) that cover their canvas and keep its pixels."""
    canvas = _canvas(images)
    return [ImageInfo(id=i, size=canvas, valid=canvas) for i in range(len(images))]


def whole(images: Tensor) -> Sizes:
    """Return the sizes of images (B, 3, H, W) that cover their canvas."""
    return Sizes([_canvas(images)] * len(images), _canvas(images))


def _canvas(images: Tensor) -> tuple[int, int]:
    return int(images.shape[2]), int(images.shape[3])


def _tensor_of(infos: Sequence[ImageInfo], device: torch.device) -> Tensor:
    """Return the sizes (B, 2) int64 of images on the canvas."""
    return torch.tensor([info.valid for info in infos], device=device)


def valid_sizes(images: Tensor, infos: Sequence[ImageInfo] | None) -> Sizes:
    """Return the sizes of images (B, 3, H, W) without padding; without infos, they cover their canvas."""
    return whole(images) if infos is None else Sizes([info.valid for info in infos], _canvas(images))
