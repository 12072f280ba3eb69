"""A head in an ONNX file for images of any size: nothing of the traced example stays in it."""

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from nasmvt.config import parse
from nasmvt.data.types import DataInfo
from nasmvt.export.onnx_graph import to_onnx, write_graphs
from nasmvt.export.runtimes import OnnxProgram, Pt2Program, RuntimeNetwork
from nasmvt.export.tracing import quiet, save_program, trace
from nasmvt.heads.deformable_detr import DeformableDETRHead
from nasmvt.heads.layers import grid_means
from nasmvt.space import load_space
from nasmvt.tasks.build import build_network
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.task import Task

SIZES: dict[str, Any] = {"levels": 2, "width": 8, "heads": 2, "points": 2, "encoder_layers": 1, "decoder_layers": 1}
DETR = DeformableDETRHead(8, 3, **SIZES, hidden=8, queries=6, detections=5)


class Static(nn.Module):
    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head = head

    def forward(self, fine: Tensor, coarse: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.head.detect_static((fine, coarse), sizes)
        return found


def given(batch: int, height: int, width: int) -> dict[str, Tensor]:
    fine, coarse = torch.randn(batch, 8, height, width), torch.randn(batch, 8, -(-height // 2), -(-width // 2))
    return {"fine": fine, "coarse": coarse, "sizes": torch.tensor([[8 * height, 5 * width]] * batch)}


def test_deformable_detr_in_a_file_serves_maps_of_any_size(tmp_path):
    for name, parameter in DETR.named_parameters():
        nn.init.normal_(parameter, std=0.3 if name.endswith("weight") else 0.1)
    network = Static(DETR).eval()
    maps = {0: Dim("batch"), 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    shapes = {"fine": maps, "coarse": maps, "sizes": {0: Dim("batch")}}
    with quiet():
        program = torch.export.export(network, (), kwargs=given(2, 9, 13), dynamic_shapes=shapes, strict=False)
    write_graphs({"head": to_onnx(program)}, tmp_path)
    served = OnnxProgram(tmp_path / "head.onnx")
    for size in ((1, 9, 13), (3, 14, 6)):
        inputs = given(*size)
        with torch.no_grad():
            ours = network(**inputs)
        theirs = served(inputs)
        assert torch.allclose(ours["scores"], theirs["scores"], atol=1e-5)
        assert torch.allclose(ours["boxes"], theirs["boxes"], atol=1e-3)


class Pooled(nn.Module):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {f"by_{side}": grid_means(images, side) for side in (1, 2, 3, 4, 6)}


def test_means_of_grids_in_a_file_are_those_of_maps_of_any_size(tmp_path):
    """Sides that the cells divide, do not divide, and exceed; the example's have remainders of every kind."""
    shapes = {"images": {0: Dim("batch"), 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}}
    example = {"images": torch.randn(2, 3, 17, 26)}
    with quiet():
        program = torch.export.export(Pooled(), (), kwargs=example, dynamic_shapes=shapes, strict=False)
    write_graphs({"pooled": to_onnx(program)}, tmp_path)
    served = OnnxProgram(tmp_path / "pooled.onnx")
    for height, width in ((17, 26), (4, 2), (8, 12), (7, 23)):
        images = torch.randn(3, 3, height, width)
        for name, expected in Pooled()(images).items():
            assert torch.allclose(served({"images": images})[name], expected, atol=1e-6), (height, width, name)


class Windowed(nn.Module):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        height, width = images.shape[2:]
        rows, columns = -(-height // 4), -(-width // 4)
        padded = F.pad(images, (0, 4 * columns - width, 0, 4 * rows - height))
        return {"means": padded.unflatten(3, (columns, 4)).unflatten(2, (rows, 4)).mean((3, 5))}


def test_sides_are_divided_downwards_in_a_file_as_in_python(tmp_path):
    shapes = {"images": {0: Dim("batch"), 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}}
    with quiet():
        program = torch.export.export(
            Windowed(), (), kwargs={"images": torch.randn(2, 3, 9, 14)}, dynamic_shapes=shapes, strict=False
        )
    write_graphs({"windows": to_onnx(program)}, tmp_path)
    served = OnnxProgram(tmp_path / "windows.onnx")
    for height, width in ((9, 14), (8, 13), (3, 4)):
        images = torch.randn(1, 3, height, width)
        found = served({"images": images})["means"]
        assert torch.allclose(found, Windowed()(images)["means"], atol=1e-6), (height, width)


@pytest.mark.parametrize("name", ["vitae_v2_nano", "scalable_vit_nano", "efficientnet_lite0"])
def test_a_networks_sizes_are_terms_with_one_occurrence_of_each_side(name, tmp_path):
    """Where a side occurs twice at every level, tracing took minutes (four and nine for two of these)."""
    space = load_space(name)
    task = Task(
        name="cls",
        config=parse(TaskConfig, {"kind": "classification", "data": {"image_size": 64}}, "cls"),
        info=DataInfo(kind="classification", classes=("a", "b", "c")),
    )
    network = build_network(space, task, space.smallest).eval()
    program = trace(network, (64, 64), any_size=True)
    values = [node.meta["val"] for node in program.graph.nodes if isinstance(node.meta.get("val"), Tensor)]
    terms = {str(side) for value in values for side in value.shape}
    assert any("//" in term for term in terms)
    for term in terms:
        symbols = re.findall(r"\bs\d+\b", term)
        assert len(symbols) == len(set(symbols)), term
    save_program(program, tmp_path / "cls.pt2")
    served = RuntimeNetwork(network, Pt2Program(tmp_path / "cls.pt2"))
    for size in ((61, 75), (64, 64), (64, 96), (34, 101)):
        images = torch.rand(2, 3, *size)
        with torch.no_grad():
            assert torch.allclose(served(images)["logits"], network(images), atol=1e-5), size
