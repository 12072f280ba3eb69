"""With an mm checkpoint's tensors and settings our necks and heads compute what mmdetection's and mmsegmentation's do.

The other side is written here from the published names alone, in float64.
"""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

from nasmvt.data.types import DataInfo
from nasmvt.families.reference import rename
from nasmvt.heads import mm_reference
from nasmvt.heads.boxes import BoxCoder, TwoSidedBoxCoder
from nasmvt.tasks import KINDS, HeadConfig, MaskRCNNConfig, TaskNetwork, UPerNetConfig
from nasmvt.tasks.heads import HEADS

WIDTH, CLASSES, CANVAS = 12, 3, (96, 160)
STRIDES = (4, 8, 16, 32, 64)
SMALL = {"width": 12, "anchor_scale": 4, "box_hidden": 16, "pre_nms": (60, 60), "post_nms": (40, 40)}


class Maps(nn.Module):
    """A backbone that hands on what it is given."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.widths, self.strides = (WIDTH,) * count, (16,) * count

    def forward(self, maps):
        return maps


def published_of(network: nn.Module, kind: str) -> dict[str, Tensor]:
    """Draw a checkpoint for a network, and load it."""
    ours = network.state_dict()
    names = dict(zip(ours, rename(ours, mm_reference.NAMES[kind]), strict=True))
    assert len(set(names.values())) == len(ours)
    state = {}
    for name, key in names.items():
        drawn = torch.rand(ours[name].shape, dtype=torch.float64)
        is_norm = re.search(r"running_var|bn\.weight", key)
        state[key] = drawn + 0.5 if is_norm else (drawn - 0.5) * (0.5 if ours[name].ndim < 4 else 0.4)
    for key in state:  # a class whose boxes shrink, and an anchor whose boxes do, beyond what is allowed
        if key.endswith("fc_reg.bias"):
            state[key][4 + 2] = -30.0
        if key.endswith("rpn_reg.bias"):
            state[key][4 + 3] = -6.0
    network.double().load_state_dict({name: mm_reference.laid_out(name, state[key]) for name, key in names.items()})
    network.eval()
    return state


class MM:
    """The few operations that the published names stand for."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def conv(self, x: Tensor, key: str) -> Tensor:
        weight = self.state[f"{key}.weight"]
        return F.conv2d(x, weight, self.state.get(f"{key}.bias"), padding=weight.shape[2] // 2)

    def deconv(self, x: Tensor, key: str) -> Tensor:
        return F.conv_transpose2d(x, self.state[f"{key}.weight"], self.state[f"{key}.bias"], stride=2)

    def bn(self, x: Tensor, key: str) -> Tensor:
        mean, var, weight, bias = (
            self.state[f"{key}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias, eps=1e-5)

    def module(self, x: Tensor, key: str) -> Tensor:
        return F.relu(self.bn(self.conv(x, f"{key}.conv"), f"{key}.bn"))

    def linear(self, x: Tensor, key: str) -> Tensor:
        return F.linear(x, self.state[f"{key}.weight"], self.state[f"{key}.bias"])


def decode(boxes: Tensor, deltas: Tensor, stds: tuple[float, ...], size: tuple[int, int]) -> Tensor:
    """Boxes (n, 4) and deltas (n, 4) to boxes, clipped to the image; both signs of a size's change are bounded."""
    dx, dy, dw, dh = (deltas * torch.tensor(stds, dtype=deltas.dtype)).unbind(1)
    bound = abs(torch.tensor(16 / 1000, dtype=deltas.dtype).log().item())
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2 + dx * width, (boxes[:, 1] + boxes[:, 3]) / 2 + dy * height
    w, h = width * dw.clamp(-bound, bound).exp(), height * dh.clamp(-bound, bound).exp()
    corners = torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), dim=1)
    limit = torch.tensor((size[1], size[0], size[1], size[0]), dtype=corners.dtype)
    return corners.clamp(min=0).minimum(limit)


def grouped_nms(boxes: Tensor, scores: Tensor, groups: Tensor, overlap: float, most: int) -> Tensor:
    """Indices of what is left, best first, suppressed group by group."""
    left = [i[nms(boxes[i], scores[i], overlap)] for i in (torch.where(groups == g)[0] for g in groups.unique())]
    kept = torch.cat(left)
    return kept[scores[kept].argsort(descending=True)][:most]


def mm_pyramid(mm: MM, x: Tensor) -> list[Tensor]:
    first = F.gelu(mm.bn(mm.deconv(x, "neck.top_downs.0.0"), "neck.top_downs.0.1.syncbn"))
    scales = [mm.deconv(first, "neck.top_downs.0.3"), mm.deconv(x, "neck.top_downs.1"), x, F.max_pool2d(x, 2)]
    levels = []
    for i, level in enumerate(scales):
        level = mm.bn(mm.conv(level, f"neck.lateral_convs.{i}.conv"), f"neck.lateral_convs.{i}.bn")
        levels.append(mm.bn(mm.conv(level, f"neck.fpn_convs.{i}.conv"), f"neck.fpn_convs.{i}.bn"))
    return [*levels, levels[-1][:, :, ::2, ::2]]


def mm_proposals(mm: MM, levels: list[Tensor], config: MaskRCNNConfig, size: tuple[int, int]) -> Tensor:
    """Proposals of one image."""
    found, all_scores, ids = [], [], []
    for number, (level, stride) in enumerate(zip(levels, STRIDES, strict=True)):
        x = level
        for i in range(config.rpn_convs):
            x = F.relu(mm.conv(x, f"rpn_head.rpn_conv.{i}.conv"))
        scores = mm.conv(x, "rpn_head.rpn_cls")[0].permute(1, 2, 0).reshape(-1).sigmoid()
        deltas = mm.conv(x, "rpn_head.rpn_reg")[0].permute(1, 2, 0).reshape(-1, 4)
        anchors = []
        for row in range(level.shape[2]):
            for column in range(level.shape[3]):
                for ratio in config.anchor_ratios:
                    h = stride * config.anchor_scale * ratio**0.5 / 2
                    w = stride * config.anchor_scale / ratio**0.5 / 2
                    x0, y0 = column * stride, row * stride
                    anchors.append((x0 - w, y0 - h, x0 + w, y0 + h))
        scores, order = scores.sort(descending=True)
        order = order[: config.pre_nms[1]]
        boxes = decode(torch.tensor(anchors, dtype=torch.float64)[order], deltas[order], (1, 1, 1, 1), size)
        found.append(boxes)
        all_scores.append(scores[: config.pre_nms[1]])
        ids.append(torch.full((len(order),), number))
    boxes, scores, groups = torch.cat(found), torch.cat(all_scores), torch.cat(ids)
    real = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1)
    boxes, scores, groups = boxes[real], scores[real], groups[real]
    return boxes[grouped_nms(boxes, scores, groups, 0.7, config.post_nms[1])]


def mm_regions(levels: list[Tensor], boxes: Tensor, side: int) -> Tensor:
    """Pool every box from the level that its size asks for (finest scale 56), aligned, with adaptive sampling."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    chosen = (area.sqrt() / 56 + 1e-6).log2().floor().clamp(0, 3).long()
    pooled = []
    for box, level in zip(boxes, chosen, strict=True):
        pooled.append(roi_align(levels[level], [box[None]], side, 1 / STRIDES[level], 0, aligned=True))
    return torch.cat(pooled)


def mm_detections(
    mm: MM, levels: list[Tensor], boxes: Tensor, config: MaskRCNNConfig, size: tuple[int, int]
) -> dict[str, Tensor]:
    x = mm_regions(levels, boxes, config.box_size)
    for i in range(config.box_convs):
        x = mm.module(x, f"roi_head.bbox_head.shared_convs.{i}")
    x = F.relu(mm.linear(x.flatten(1), "roi_head.bbox_head.shared_fcs.0"))
    scores = mm.linear(x, "roi_head.bbox_head.fc_cls").softmax(1)[:, :-1]  # the background is last
    deltas = mm.linear(x, "roi_head.bbox_head.fc_reg").reshape(len(boxes), CLASSES, 4)
    all_boxes = torch.stack([decode(boxes, deltas[:, k], (0.1, 0.1, 0.2, 0.2), size) for k in range(CLASSES)], dim=1)
    chosen = scores > config.score_threshold
    labels = torch.arange(CLASSES).expand_as(scores)[chosen]
    flat, flat_scores = all_boxes[chosen], scores[chosen]
    kept = grouped_nms(flat, flat_scores, labels, config.nms, config.detections)
    boxes, labels = flat[kept], labels[kept]
    x = mm_regions(levels, boxes, config.mask_size)
    for i in range(config.mask_convs):
        x = F.relu(mm.conv(x, f"roi_head.mask_head.convs.{i}.conv"))
    x = F.relu(mm.deconv(x, "roi_head.mask_head.upsample"))
    masks = mm.conv(x, "roi_head.mask_head.conv_logits")[torch.arange(len(labels)), labels].sigmoid()
    return {"boxes": boxes, "labels": labels, "scores": flat_scores[kept], "masks": masks}


def network_of(kind: str, backbone: nn.Module, config: HeadConfig) -> TaskNetwork:
    info = DataInfo(kind=kind, classes=tuple(str(k) for k in range(CLASSES)), has_masks=True)
    parts = HEADS.get(config.type).build(backbone.widths, backbone.strides, config, info)
    return KINDS.get(kind).network(backbone, parts, classes=info.classes, mean=(0.0,) * 3, std=(1.0,) * 3)


def detector_config(**changes) -> MaskRCNNConfig:
    return MaskRCNNConfig(**{**mm_reference.SETTINGS["detection"], **SMALL, **changes})


def detector(**changes) -> TaskNetwork:
    return network_of("detection", Maps(1), detector_config(**changes))


def test_a_detector_with_the_published_settings_is_mmdetections():
    network = detector()
    state = published_of(network, "detection")
    mm, x = MM(state), torch.randn(1, WIDTH, 6, 10, dtype=torch.float64)
    levels = mm_pyramid(mm, x)
    with torch.inference_mode():
        ours = network.neck((x,))
        assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(ours, levels, strict=True))
        features = {str(i): level for i, level in enumerate(ours)}
        images = type("Images", (), {"image_sizes": [CANVAS]})()
        proposals = network.head.rpn(images, features)[0][0]
        want = mm_proposals(mm, levels, detector_config(), CANVAS)
        assert len(want) == 40
        torch.testing.assert_close(proposals, want, rtol=0, atol=1e-4)  # torchvision keeps anchors in float32

        found = network.head.detect(ours, [CANVAS])[0]
        expected = mm_detections(mm, levels, want, detector_config(), CANVAS)
    assert len(expected["labels"]) > 10
    assert set(expected["labels"].tolist()) == set(range(CLASSES))
    assert torch.equal(found["labels"], expected["labels"])
    for key, atol in {"boxes": 1e-3, "scores": 1e-5, "masks": 1e-4}.items():
        torch.testing.assert_close(found[key], expected[key], rtol=0, atol=atol)


@pytest.mark.parametrize(
    "change",
    [{"anchor_rounding": True}, {"roi_aligned": False}, {"clip_shrinking": False}],
    ids=lambda c: next(iter(c)),
)
def test_every_setting_is_needed(change):
    torch.manual_seed(0)
    network, other = detector(), detector(**change)
    published_of(network, "detection")
    other.double().load_state_dict(network.state_dict())
    other.eval()
    maps = network.neck((torch.randn(1, WIDTH, 6, 10, dtype=torch.float64),))
    with torch.inference_mode():
        first, second = (net.head.detect(maps, [CANVAS])[0] for net in (network, other))
    same = first["boxes"].shape == second["boxes"].shape
    assert not (same and torch.allclose(first["boxes"], second["boxes"], atol=1e-2))


def test_offsets_are_bounded_on_both_sides():
    boxes, codes = torch.tensor([[0.0, 0.0, 62.5, 62.5]]), torch.tensor([[0.0, 0.0, -9.0, 9.0]])
    two = TwoSidedBoxCoder((1.0, 1.0, 1.0, 1.0)).decode(codes, [boxes])[0, 0]
    one = BoxCoder((1.0, 1.0, 1.0, 1.0)).decode(codes, [boxes])[0, 0]
    assert (two[2] - two[0]).item() == pytest.approx(1.0, rel=1e-4)
    assert (one[2] - one[0]).item() < 0.01
    assert torch.equal(one[1::2], two[1::2])


def test_a_segmenter_is_mmsegmentations():
    config = UPerNetConfig(**{**mm_reference.SETTINGS["segmentation"], "channels": 8, "aux_channels": 6})
    network = network_of("segmentation", Maps(4), config)
    mm = MM(published_of(network, "segmentation"))
    sources = [torch.randn(2, WIDTH, 6, 8, dtype=torch.float64) for _ in range(4)]

    def resize(x: Tensor, size) -> Tensor:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)

    levels = []
    for i, (x, scale) in enumerate(zip(sources, (4, 2, 1, 0.5), strict=True)):
        lateral = mm.conv(x, f"neck.lateral_convs.{i}.conv")
        scaled = F.interpolate(lateral, scale_factor=scale, mode="bilinear", align_corners=False)
        levels.append(mm.conv(scaled, f"neck.convs.{i}.conv"))
    pooled = [levels[3]]
    for i, side in enumerate((1, 2, 3, 6)):
        part = mm.module(F.adaptive_avg_pool2d(levels[3], side), f"decode_head.psp_modules.{i}.1")
        pooled.append(resize(part, levels[3].shape[2:]))
    laterals = [mm.module(levels[i], f"decode_head.lateral_convs.{i}") for i in range(3)]
    laterals.append(mm.module(torch.cat(pooled, dim=1), "decode_head.bottleneck"))
    for i in (3, 2, 1):
        laterals[i - 1] = laterals[i - 1] + resize(laterals[i], laterals[i - 1].shape[2:])
    outs = [mm.module(laterals[i], f"decode_head.fpn_convs.{i}") for i in range(3)] + [laterals[3]]
    joined = torch.cat([resize(out, outs[0].shape[2:]) for out in outs], dim=1)
    want = mm.conv(mm.module(joined, "decode_head.fpn_bottleneck"), "decode_head.conv_seg")
    auxiliary = mm.conv(mm.module(levels[3], "auxiliary_head.convs.0"), "auxiliary_head.conv_seg")

    with torch.inference_mode():
        maps = network.neck(sources)
        torch.testing.assert_close(network.head(maps), want, rtol=0, atol=1e-10)
        torch.testing.assert_close(network.auxiliary(maps), auxiliary, rtol=0, atol=1e-10)
