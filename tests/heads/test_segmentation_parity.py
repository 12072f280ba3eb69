"""Segmentation heads against vectors of the released code: outputs, losses, gradients, statistics, initial weights."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nasmvt.data.types import DataInfo
from nasmvt.errors import UserError
from nasmvt.families.reference import rename
from nasmvt.heads import mm_reference, mm_segmentation
from nasmvt.tasks import KINDS, SegFormerConfig, SemanticFPNConfig, TaskNetwork, UPerNetConfig
from nasmvt.tasks.heads import HEADS, HeadConfig
from nasmvt.tasks.segmentation_heads import SegmentationHeadConfig

PARITY = Path(os.environ.get("NASMVT_SHARED", "../shared")) / "parity"
STRIDES = (4, 8, 16, 32)


class Given(nn.Module):
    """A backbone that hands on the maps that it is given."""

    def __init__(self, widths: list[int], strides: tuple[int, ...]) -> None:
        super().__init__()
        self.widths, self.strides = widths, strides

    def forward(self, maps: Any) -> Any:
        return maps


def semantic_fpn(config: dict[str, Any]) -> HeadConfig:
    return SemanticFPNConfig(width=config["fpn_channels"], channels=config["head_channels"], loss_over="all")


def segformer(config: dict[str, Any]) -> HeadConfig:
    return SegFormerConfig(channels=config["embed_dim"], unused=config["channels_of_unused_conv_seg"], loss_over="all")


def upernet(config: dict[str, Any]) -> HeadConfig:
    return UPerNetConfig(
        channels=config.get("channels", config.get("head_channels")),
        aux_channels=config["aux"]["channels"],
        aux_levels=(config["aux"]["in_index"],),
        neck_width=config.get("neck_channels"),
        norm="batch",
        loss_over="all",
    )


CASES = {
    "seg_semantic_fpn": (semantic_fpn, mm_segmentation.NAMES["semantic_fpn"]),
    "seg_segformer": (segformer, mm_segmentation.NAMES["segformer"]),
    "seg_upernet": (upernet, mm_segmentation.NAMES["upernet"]),
    "seg_multilevel": (upernet, mm_reference.NAMES["segmentation"]),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[TaskNetwork, dict[str, Tensor], dict[str, str]]:
    """A network with the tensors of a vector file, the file's content, and the published name of every tensor."""
    path = PARITY / f"{request.param}.safetensors"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    config, vectors = json.loads(path.with_suffix(".json").read_text())["config"], load_file(path)
    settings, rules = CASES[request.param]
    widths = config["in_channels"]
    backbone = Given([widths] * 4, (16,) * 4) if isinstance(widths, int) else Given(widths, STRIDES)
    info = DataInfo(kind="segmentation", classes=tuple(map(str, range(config["num_classes"]))))
    head = settings(config)
    parts = HEADS.get(head.type).build(backbone.widths, backbone.strides, head, info)
    network = KINDS.get("segmentation").network(backbone, parts, classes=info.classes, mean=(0.0,) * 3, std=(1.0,) * 3)
    network.normalize = lambda maps: maps  # type: ignore[assignment,method-assign]
    names = dict(zip(network.state_dict(), rename(network.state_dict(), rules), strict=True))
    return network, vectors, names


def load(network: TaskNetwork, vectors: dict[str, Tensor], names: dict[str, str]) -> None:
    published = {key.removeprefix("state."): value for key, value in vectors.items() if key.startswith("state.")}
    assert set(published) == set(names.values())
    network.load_state_dict({name: published[key] for name, key in names.items()})


def close(ours: Tensor, theirs: Tensor, bound: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=0, atol=bound * float(theirs.abs().max()))


def test_outputs_and_losses(case: Any) -> None:
    network, vectors, names = case
    load(network, vectors, names)
    network.eval()
    for size in [key.removeprefix("target.") for key in vectors if key.startswith("target.")]:
        maps = network.maps([vectors[f"input.{level}.{size}"] for level in range(4)])
        for level, map_ in enumerate(maps):
            close(map_, vectors.get(f"neck.{level}.{size}", map_))
        close(network.head(maps), vectors[f"logits.decode.{size}"])
        targets = vectors[f"target.{size}"][:, 0]
        close(network.head.losses(maps, targets, ())["loss_seg"], vectors[f"loss.decode.{size}"])
        if network.auxiliary is not None:
            close(network.auxiliary(maps), vectors[f"logits.aux.{size}"])
            close(network.auxiliary.losses(maps, targets, ())["loss_aux"], vectors[f"loss.aux.{size}"])


def test_gradients_and_statistics(case: Any) -> None:
    network, vectors, names = case
    load(network, vectors, names)
    for module in network.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    size = next((k.removeprefix("train.loss.total.") for k in vectors if k.startswith("train.loss.total.")), None)
    if size is None:
        return  # outputs only, tested above
    maps = [vectors[f"input.{level}.{size}"] for level in range(4)]
    network.normalize = lambda images: maps  # type: ignore[assignment,method-assign,return-value]
    targets = vectors[f"target.{size}"][:, 0]
    total = sum(network.train().loss(torch.empty(len(targets), 3, *targets.shape[1:]), targets).values())
    assert isinstance(total, Tensor)
    close(total, vectors[f"train.loss.total.{size}"])
    total.backward()
    ours = {names[name]: parameter.grad for name, parameter in network.named_parameters()}
    buffers = {names[name]: buffer for name, buffer in network.named_buffers() if name in names}
    for key, value in vectors.items():
        if key.startswith("grad."):
            gradient = ours[key.removeprefix("grad.")]
            assert gradient is not None
            close(gradient, value, 1e-4)
        elif key.startswith("after."):
            close(buffers[key.removeprefix("after.")], value)


def test_only_ignored_pixels_and_class_weights() -> None:
    """By hand: two pixels, both classes equally likely; a mean counts them by their weights, or all four of them."""
    info = DataInfo(kind="segmentation", classes=("a", "b"))
    logits, targets = torch.zeros(1, 2, 2, 2), torch.tensor([[[0, 1], [255, 255]]])
    ln2 = 0.6931472
    for over, weights, expected in (
        ("counted", None, ln2),
        ("all", None, ln2 / 2),
        ("counted", {"b": 3.0}, ln2),
        ("all", {"b": 3.0}, ln2),
        ("counted", {"a": 0.0, "b": 0.0}, 0.0),
    ):
        loss = SegmentationHeadConfig(type="", loss_over=over, class_weights=weights).loss(info)  # type: ignore[arg-type]
        assert loss(logits, targets)["loss_seg"].item() == pytest.approx(expected)
        assert loss(logits, torch.full_like(targets, 255))["loss_seg"].item() == 0


def test_wrong_levels_and_classes_get_a_sentence() -> None:
    info = DataInfo(kind="segmentation", classes=("road", "sky"))
    with pytest.raises(UserError, match=r"there is no 'raod'; did you mean 'road'"):
        SemanticFPNConfig(class_weights={"raod": 2.0}).check_data(info)
    config = UPerNetConfig(aux_levels=(1, 4))
    with pytest.raises(UserError, match=r"names maps of the neck, which gives 4 \(0 to 3\), but names 4"):
        HEADS.get("upernet").build((8,) * 4, STRIDES, config, info)
