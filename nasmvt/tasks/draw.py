"""Images for people: training targets and predictions."""

from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from nasmvt.data.types import Batch, DataInfo
from nasmvt.tasks.drawing import draw_grid, to_bytes
from nasmvt.tasks.kinds import KINDS
from nasmvt.tasks.network import Prediction


def draw_targets(batch: Batch, info: DataInfo, most: int = 16) -> Image.Image:
    """Draw the first images of a training batch with their labels, in a grid.

    Args:
        batch: images with targets in canvas pixels.
        info: the kind of the targets, and the class names.
        most: maximum number of images drawn.
    """
    draw = KINDS.get(info.kind).draw_target
    count = min(most, len(batch.images))
    return draw_grid([draw(to_bytes(batch.images[i]), batch.targets[i], info) for i in range(count)])


def draw_prediction(image: Image.Image | Tensor, prediction: Prediction, min_score: float = 0.3) -> Image.Image:
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
