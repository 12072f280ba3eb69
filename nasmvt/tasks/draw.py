"""Images for people: training targets and predictions."""

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from nasmvt.data.types import Batch, DataInfo
from nasmvt.tasks.drawing import draw_grid, to_bytes
from nasmvt.tasks.kinds import KINDS
from nasmvt.tasks.network import Prediction

MIN_SCORE = 0.3
"""Objects with a lower score are not drawn, unless said otherwise."""


def draw_targets(batch: Batch, info: DataInfo, most: int = 16) -> Image.Image:
    """Draw the first images of a training batch with their labels, in a grid.

    Args:
        batch: images with targets in canvas pixels.
        info: the kind of the targets, and the class names.
        most: maximum number of images drawn.
    """
    draw = KINDS.get(info.kind).draw_target
    count = min(most, len(batch.images))
    return draw_grid([draw(to_bytes(batch.images[i]), _of_one(batch.targets, i), info) for i in range(count)])


def _of_one(targets: Any, place: int) -> Any:
    """Return the target of one image of a training batch."""
    return {key: value[place] for key, value in targets.items()} if isinstance(targets, dict) else targets[place]


def draw_beside(
    batch: Batch, predictions: Sequence[Prediction], info: DataInfo, min_score: float = MIN_SCORE
) -> Image.Image:
    """Draw the images of a batch in pairs, on the left with their labels, on the right with what was predicted.

    Args:
        batch: images with targets in canvas pixels.
        predictions: in canvas pixels too, for the first images or all of them.
        info: the kind of the targets, and the class names.
        min_score: detections with a lower score are not drawn, but for the best ones, as many as there are labels.
    """
    kind = KINDS.get(info.kind)
    cells = []
    for i, (image, prediction) in enumerate(zip(batch.images, predictions, strict=False)):
        target = _of_one(batch.targets, i)
        count = kind.count_objects(target) if kind.count_objects else 0
        expected = prediction.object_scores()[:count]
        cells += [
            kind.draw_target(to_bytes(image), target, info),
            draw_prediction(image, prediction, min([min_score, *expected[-1:]])),
        ]
    return draw_grid(cells, columns=2 * max(round((len(cells) / 2) ** 0.5), 1))


def draw_prediction(image: Image.Image | Tensor, prediction: Prediction, min_score: float = MIN_SCORE) -> Image.Image:
    """Draw a prediction on the image that it was made for.

    Args:
        image: the image, in the pixels of the prediction: the original one, or the canvas (3, H, W),
            uint8 in 0..255 or float in 0..1, if the prediction was made without infos.
        prediction: what a task network predicted.
        min_score: detections with a lower score are not drawn.
    """
    return prediction.draw(
        to_bytes(image if isinstance(image, Tensor) else pil_to_tensor(image.convert("RGB"))), min_score
    )
