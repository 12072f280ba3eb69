"""Graphs that take an image as it is: the canvas and the predictions are PyTorch's."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from nasmvt.config import parse
from nasmvt.data.config import DataConfig
from nasmvt.data.transforms import EvalTransform
from nasmvt.errors import UserError
from nasmvt.export.onnx_graph import to_onnx, write_graph
from nasmvt.export.onnx_images import check_kind, placement, with_images
from nasmvt.export.runtimes import OnnxProgram
from nasmvt.export.schema import Preprocessing
from nasmvt.export.tracing import quiet
from nasmvt.tasks.pixels import label_map

CANVAS = (32, 48)
HOW = Preprocessing(canvas=CANVAS, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
PLACE = EvalTransform(parse(DataConfig, {"image_size": list(CANVAS)}, "data"))


def picture(height: int, width: int) -> Tensor:
    drawn = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return torch.from_numpy(drawn)


@pytest.mark.parametrize("size", [(32, 48), (47, 101), (300, 77), (9, 11), (1, 400)])
def test_the_canvas_is_that_of_pytorch_to_a_grey_level(size, tmp_path):
    write_graph(placement(HOW), tmp_path / "canvas.onnx")
    image = picture(*size)
    found = OnnxProgram(tmp_path / "canvas.onnx")({"image": image})
    expected, info = PLACE(image.permute(2, 0, 1))
    difference = (found["pixels"][0] - expected.float()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.02
    assert tuple(found["sizes"][0].tolist()) == info.valid


class Classes(nn.Module):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": images.mean(dim=(2, 3))}


class Pixels(nn.Module):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": nn.functional.avg_pool2d(images, 4)}


class Boxes(nn.Module):
    def forward(self, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        whole = nn.functional.pad(sizes.flip(1).float(), (2, 0))[:, None]
        boxes = torch.cat((whole / 2, whole * 2, whole), dim=1)
        scores = images.mean(dim=(1, 2, 3))[:, None] * 0 + torch.tensor([0.9, 0.5, 0.0])
        return {"boxes": boxes, "labels": boxes[..., 0].long() + 1, "scores": scores, "count": (scores > 0).sum(dim=1)}


def predicted(module: nn.Module, kind: str, image: Tensor, folder: Any) -> dict[str, Tensor]:
    """Compute an image by a file around a module."""
    example = {"images": torch.zeros(2, 3, *CANVAS)}
    if kind == "detection":
        example["sizes"] = torch.tensor([CANVAS, CANVAS])
    shapes = {name: {0: Dim("batch")} for name in example}
    with quiet():
        program = torch.export.export(module.eval(), (), kwargs=example, dynamic_shapes=shapes, strict=False)
    write_graph(with_images(to_onnx(program), kind, HOW), folder / "model.onnx")
    return OnnxProgram(folder / "model.onnx")({"image": image})


def normalised(image: Tensor) -> tuple[Tensor, Any]:
    canvas, info = PLACE(image.permute(2, 0, 1))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (HOW.mean, HOW.std))
    return ((canvas / 255 - mean) / std)[None], info


def test_predictions_are_in_the_pixels_of_the_image(tmp_path):
    image = picture(64, 80)
    images, info = normalised(image)
    found = predicted(Classes(), "classification", image, tmp_path)
    assert found["probabilities"] == pytest.approx(images.mean(dim=(2, 3)).softmax(1)[0], abs=1e-3)
    found = predicted(Pixels(), "segmentation", image, tmp_path)
    expected = label_map(Pixels()(images)["logits"][0], CANVAS, info)
    assert found["labels"].dtype == torch.uint8
    assert (found["labels"] == expected).float().mean() > 0.99
    found = predicted(Boxes(), "detection", image, tmp_path)
    assert found["boxes"].tolist() == [[0, 0, 40, 32], [0, 0, 80, 64]]  # clipped, and what does not count left out
    assert found["labels"].tolist() == [1, 1]
    assert found["scores"].tolist() == pytest.approx([0.9, 0.5])


def test_what_can_not_be_in_a_graph_is_refused():
    with pytest.raises(UserError, match="is a panoptic task"):
        check_kind("pan", "panoptic", HOW)
    cut = Preprocessing(**{**HOW.model_dump(), "placement": "keep_ratio", "test": {"type": "keep_ratio", "short": 32}})
    with pytest.raises(UserError, match="by 'keep_ratio'"):
        check_kind("seg", "segmentation", cut)
