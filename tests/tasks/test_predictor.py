"""Windows, scales and mirrored views against vectors of the released code; batches against single images."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nasmvt.config import parse
from nasmvt.data import DataConfig, EvalSet, open_dataset
from nasmvt.data.protocols import KeepRatioProtocol
from nasmvt.data.types import DataInfo, ImageInfo
from nasmvt.heads.segmentation import SegmentationHead
from nasmvt.tasks import SegmentationNetwork, Task, TaskConfig
from nasmvt.tasks.evaluate import evaluate
from nasmvt.tasks.heads import HeadParts
from nasmvt.tasks.pixels import windows
from nasmvt.tasks.segmentation import SegmentationPredictor

VECTORS = Path(os.environ.get("NASMVT_SHARED", "../shared")) / "parity" / "seg_protocols.safetensors"


class Pixels(SegmentationHead):
    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.scores = nn.Conv2d(inputs, classes, 1)

    def forward(self, maps: Any) -> Tensor:
        scores: Tensor = self.scores(maps[0].relu())
        return scores


class Convolution(nn.Module):
    strides = (4,)

    def __init__(self) -> None:
        super().__init__()
        self.widths, self.conv = (6,), nn.Conv2d(3, 6, 5, stride=4, padding=2)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.conv(images),)


@pytest.fixture
def vectors() -> dict[str, Tensor]:
    if not VECTORS.exists():
        pytest.skip(f"there is no {VECTORS}")
    return load_file(VECTORS)


@pytest.fixture
def network(vectors: dict[str, Tensor]) -> SegmentationNetwork:
    parts = HeadParts(neck=nn.Identity(), head=Pixels(6, 5))
    classes = tuple("abcde")
    network = SegmentationNetwork(Convolution(), parts, classes=classes, mean=(0.0,) * 3, std=(1.0,) * 3)
    names = {"backbone.conv": "backbone.conv", "head.scores": "decode_head.conv_seg"}
    state = {
        f"{ours}.{n}": vectors[f"state.{theirs}.{n}"] for ours, theirs in names.items() for n in ("weight", "bias")
    }
    network.load_state_dict(state)
    return network


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


def cases() -> dict[str, Any]:
    cases: dict[str, Any] = json.loads(VECTORS.with_suffix(".json").read_text())["cases"]
    return cases


@pytest.mark.parametrize("name", ["whole", "whole_up", "slide", "slide_fit", "slide_low", "slide_exact"])
def test_whole_and_sliding(name: str, network: SegmentationNetwork, vectors: dict[str, Tensor]) -> None:
    case, images = cases()[name], vectors[f"{name}.input"]
    slides = {"slide": case["crop"], "stride": case["stride"]} if "crop" in case else {}
    predictor = SegmentationPredictor(network, KeepRatioProtocol(short=16, **slides))
    valid, size = (images.shape[2], images.shape[3]), tuple(case["original"])
    info = ImageInfo(id=0, size=size, valid=valid, canvas=valid)
    with torch.inference_mode():
        close(predictor.probabilities(images, [info]), vectors[f"{name}.prob"][0])
    (prediction,) = predictor.predict(images, [info])
    assert torch.equal(prediction.labels, vectors[f"{name}.pred"])
    if "crop" in case:
        found = windows(valid, tuple(case["crop"]), tuple(case["stride"]))
        assert [[r.start, r.stop, c.start, c.stop] for r, c in found] == case["windows_y1y2x1x2"]


@pytest.mark.parametrize("name", ["whole", "slide"])
def test_scales_and_mirrored_views(name: str, network: SegmentationNetwork, vectors: dict[str, Tensor]) -> None:
    aug = json.loads(VECTORS.with_suffix(".json").read_text())["aug"]
    long, short = aug["img_scale_long_short"]
    slides = {"slide": 32, "stride": 21} if name == "slide" else {}
    protocol = KeepRatioProtocol(short=short, long=long, ratios=aug["ratios"], flip=True, **slides)
    placements = protocol.views((16, 16))
    size = tuple(aug["original"])
    assert [list(placement.place(size).valid) for placement in placements] == aug["sizes_hw"]
    views = [vectors[f"aug.input.{number}"] for number in range(len(placements))]
    canvas = (max(v.shape[2] for v in views), max(v.shape[3] for v in views))
    images = torch.full((len(views), 3, *canvas), 1e3)  # what a batch is padded with must have no influence
    infos = []
    for image, view, flip in zip(images, views, aug["flips"], strict=True):
        valid = (view.shape[2], view.shape[3])
        image[:, : valid[0], : valid[1]] = view[0]
        infos.append(ImageInfo(id=0, size=size, valid=valid, canvas=valid, flip=flip))
    predictor = SegmentationPredictor(network, protocol)
    with torch.inference_mode():
        probabilities = predictor.probabilities(images, infos)
        close(probabilities, vectors[f"aug.{name}.prob"][0])
    (prediction,) = predictor.predict(images, infos)
    expected, best = vectors[f"aug.{name}.pred"], probabilities.topk(2, dim=0).values
    assert torch.equal(prediction.labels[best[0] - best[1] > 1e-6], expected[best[0] - best[1] > 1e-6])


KINDS = {
    "classification": {"type": "centre_crop", "ratio": 0.9},
    "detection": {"type": "keep_ratio", "short": 32, "long": 80, "divisor": 16},
    "segmentation": {"type": "keep_ratio", "short": 32, "slide": 32, "stride": 24, "ratios": [0.75, 1], "flip": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_gives_what_single_images_give(kind: str, tasks: Any, supernet: Any) -> None:
    """Images of many sizes: batches of 1 and 7 give the same figures, though a batch is padded to its largest image."""
    name = {"classification": "cls", "detection": "det", "segmentation": "seg"}[kind]
    values = {**tasks[name].config.model_dump(mode="json"), "kind": kind}
    values["data"]["test"] = KINDS[kind]
    config = parse(TaskConfig, values, "x")
    network = supernet.materialize(supernet.space.smallest).task(name)
    sizes = [(40, 60), (60, 40), (48, 48), (33, 71)]
    datasets = [open_dataset(DataConfig(image_size=size), kind, "val", 0) for size in sizes]
    info = DataInfo(kind=kind, classes=network.classes, has_masks=datasets[0].info.has_masks)
    task = Task(name=name, config=config, info=info)
    figures, predictions = [], []
    for batch_size in (1, 7):
        images = EvalSet(Mixed(datasets, len(network.classes)), range(8), config.data, batch_size)  # type: ignore[arg-type]
        figures.append(evaluate(network, images, task, "cpu"))
        predictor = task.predictor(network)
        predictions.append([p for batch in images for p in predictor.predict(batch.images, batch.infos)])
    assert figures[0] == figures[1]
    assert len(predictions[0]) == 8
    for alone, together in zip(*predictions, strict=True):
        torch.testing.assert_close(tensors(alone), tensors(together), rtol=1e-4, atol=1e-4)


def tensors(prediction: Any) -> list[Tensor]:
    """Return what a prediction holds; detections by their places, since rounding orders those of equal scores."""
    found = [value for value in vars(prediction).values() if isinstance(value, Tensor)]
    if (boxes := getattr(prediction, "boxes", None)) is None:
        return found
    rows = sorted(range(len(boxes)), key=lambda row: boxes[row].round().tolist())
    return [value[rows] for value in found]


class Mixed:
    """Two images of each of several data sets, with labels that the network knows."""

    def __init__(self, datasets: list[Any], classes: int) -> None:
        self.datasets, self.classes, self.info = datasets, classes, datasets[0].info

    def __getitem__(self, index: int) -> Any:
        sample = self.datasets[index % len(self.datasets)][index // len(self.datasets)]
        if isinstance(sample.target, dict):
            return replace(sample, id=index, target={**sample.target, "labels": sample.target["labels"] % self.classes})
        return replace(sample, id=index, target=sample.target % self.classes)
