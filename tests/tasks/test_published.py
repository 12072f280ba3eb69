"""Published dense networks: exact parameters by part, and checkpoints that load strictly."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import nasmvt
from nasmvt.errors import UserError
from nasmvt.families.reference import rename
from nasmvt.heads import mm_segmentation
from nasmvt.tasks import TaskNetwork
from nasmvt.tasks.published import DENSE

PARITY = Path(os.environ.get("NASMVT_SHARED", "../shared")) / "parity"
ROWS = {
    "upernet_mpvit_small": (51_588_020, 22_603_400, 28_282_006, 702_614),
    "upernet_mpvit_base": (105_295_196, 74_364_976, 29_785_238, 1_144_982),
    "upernet_scalable_vit_small": (56_101_660, 25_794_032, 29_678_742, 628_886),
    "upernet_scalable_vit_base": (107_047_772, 74_626_608, 31_497_366, 923_798),
    "upernet_scalable_vit_large": (135_519_948, 100_985_248, 33_315_990, 1_218_710),
    "semantic_fpn_scalable_vit_small": (30_044_294, 25_794_032, 4_250_262, 0),
    "semantic_fpn_scalable_vit_base": (78_999_750, 74_626_608, 4_373_142, 0),
    "semantic_fpn_scalable_vit_large": (105_481_270, 100_985_248, 4_496_022, 0),
    "segformer_lvt": (3_889_936, 3_429_092, 460_844, 0),
    "panoptic_fpn_lvt": (5_349_770, 3_429_092, 384_768 + 84_495 + 843_121 + 376_880 + 231_414, 0),
}
"""In all, of the backbone, of neck and head, of the auxiliary head."""


DETECTORS = {
    "retinanet_mpvit_tiny": 15_104_612,
    "retinanet_mpvit_xsmall": 19_911_060,
    "retinanet_mpvit_small": 32_294_268,
    "retinanet_mpvit_base": 84_635_428,
    "mask_rcnn_mpvit_tiny": 25_712_224,
    "mask_rcnn_mpvit_xsmall": 30_434_704,
    "mask_rcnn_mpvit_small": 42_744_184,
    "mask_rcnn_mpvit_base": 94_667_552,
    "cascade_mask_rcnn_mpvit_small": 70_385_894,
    "cascade_mask_rcnn_mpvit_base": 122_309_262,
    "deformable_detr_mpvit_small": 34_448_361,
    "deformable_detr_refined_mpvit_small": 35_228_356,
    "deformable_detr_two_stage_mpvit_small": 35_560_225,
    "mask_rcnn_vitae_v2_s": 38_993_712,
    "cascade_mask_rcnn_vitae_v2_s": 76_828_914,
    "retinanet_scalable_vit_small": 36_026_596,
    "retinanet_scalable_vit_base": 85_563_172,
    "retinanet_scalable_vit_large": 112_625_812,
    "mask_rcnn_scalable_vit_small": 45_944_032,
    "mask_rcnn_scalable_vit_base": 94_898_976,
    "mask_rcnn_scalable_vit_large": 121_379_984,
}
"""In all."""


def count(*modules: nn.Module | None) -> int:
    return sum(p.numel() for module in modules if module is not None for p in module.parameters())


@pytest.mark.parametrize("name", ROWS)
def test_parameters_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        network = nasmvt.published(name)
    assert isinstance(network, TaskNetwork)
    parts = (count(network.backbone), count(network.neck, network.head), count(network.auxiliary))
    assert (count(network), *parts) == ROWS[name]


@pytest.mark.parametrize("name", DETECTORS)
def test_parameters_of_detectors_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        assert count(nasmvt.published(name)) == DETECTORS[name]


@pytest.mark.parametrize(
    ("name", "changes", "parameters"),
    [
        ("retinanet_mpvit_tiny", {"mlp_ratios": (4, 4, 4, 4)}, 17_412_212),
        ("mask_rcnn_mpvit_tiny", {"mlp_ratios": (4, 4, 4, 4)}, 28_019_824),
        ("mask_rcnn_vitae_v2_s", {"depths": (2, 2, 6, 2)}, 37_240_112),
        ("cascade_mask_rcnn_vitae_v2_s", {"depths": (2, 2, 6, 2)}, 75_075_314),
    ],
)
def test_figures_of_the_papers_that_their_code_does_not_give(name: str, changes: Any, parameters: int) -> None:
    """The published 17, 28, 37 and 75M are those of networks that were not released."""
    with torch.device("meta"):
        assert count(nasmvt.published(name, **changes)) == parameters


@pytest.mark.parametrize(
    ("name", "size", "gmacs"),
    [
        ("retinanet_mpvit_base", (800, 1280), 482),
        ("mask_rcnn_mpvit_small", (800, 1280), 268),
        ("retinanet_scalable_vit_base", (800, 1280), 330),
        ("mask_rcnn_scalable_vit_large", (800, 1280), 477),
        ("upernet_mpvit_base", (512, 2048), 1185),
        ("semantic_fpn_scalable_vit_base", (512, 2048), 270),
    ],
)
def test_work_is_the_published_without_products_of_activations(name: str, size: tuple[int, int], gmacs: float) -> None:
    """The counters of the papers see layers alone: neither attention's products nor, as ours, norms and resizing."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network = nasmvt.published(name).eval()
        assert isinstance(network, TaskNetwork)
        network.workload(torch.empty(1, 3, *size))
    counts = {str(operation): flops for operation, flops in counter.get_flop_counts()["Global"].items()}
    layers = sum(flops for name, flops in counts.items() if "bmm" not in name and "attention" not in name)
    assert layers / 2e9 == pytest.approx(gmacs, rel=0.005)


def published_keys(name: str) -> dict[str, list[int]]:
    path = PARITY / f"{name}.json"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    keys: dict[str, list[int]] = json.loads(path.read_text())
    return keys


BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def pairs(*modules: str) -> list[str]:
    return [f"{module}.{leaf}" for module in modules for leaf in ("weight", "bias")]


D2_PYRAMID = [f"backbone.fpn_{part}{level}" for part in ("lateral", "output") for level in (2, 3, 4, 5)]
D2_RPN = [f"proposal_generator.rpn_head.{part}" for part in ("conv", "objectness_logits", "anchor_deltas")]
D2_MASKS = [f"roi_heads.mask_head.{part}" for part in (*(f"mask_fcn{i}" for i in (1, 2, 3, 4)), "deconv", "predictor")]
MM_PYRAMID = [f"neck.{part}.{i}.conv" for part in ("lateral_convs", "fpn_convs") for i in range(4)]
MM_RPN = [f"rpn_head.{part}" for part in ("rpn_conv", "rpn_cls", "rpn_reg")]
MASK_PARTS = (*(f"convs.{i}.conv" for i in range(4)), "upsample", "conv_logits")
OUTSIDE = {
    "retinanet_mpvit_small": pairs(
        *(key for key in D2_PYRAMID if not key.endswith("2")),
        *("backbone.top_block.p6", "backbone.top_block.p7", "head.cls_score", "head.bbox_pred"),
        *(f"head.{tower}_subnet.{i}" for tower in ("cls", "bbox") for i in (0, 2, 4, 6)),
    ),
    "mask_rcnn_mpvit_small": pairs(
        *(*D2_PYRAMID, *D2_RPN, *D2_MASKS, "roi_heads.box_head.fc1", "roi_heads.box_head.fc2"),
        *("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"),
    ),
    "cascade_mask_rcnn_mpvit_small": pairs(
        *(*D2_PYRAMID, *D2_RPN, *D2_MASKS),
        *(f"roi_heads.box_head.{stage}.fc{i}" for stage in range(3) for i in (1, 2)),
        *(f"roi_heads.box_predictor.{stage}.{part}" for stage in range(3) for part in ("cls_score", "bbox_pred")),
    ),
    "mask_rcnn_vitae_v2_s": pairs(
        *(*MM_PYRAMID, *MM_RPN, *(f"roi_head.mask_head.{part}" for part in MASK_PARTS)),
        *(f"roi_head.bbox_head.{part}" for part in ("shared_fcs.0", "shared_fcs.1", "fc_cls", "fc_reg")),
    ),
    "cascade_mask_rcnn_vitae_v2_s": [
        *pairs(
            *(*MM_PYRAMID, *MM_RPN),
            *(f"roi_head.mask_head.{stage}.{part}" for stage in range(3) for part in MASK_PARTS),
            *(f"roi_head.bbox_head.{stage}.{p}" for stage in range(3) for p in ("shared_fcs.0", "fc_cls", "fc_reg")),
        ),
        *(f"roi_head.bbox_head.{stage}.shared_convs.{i}.conv.weight" for stage in range(3) for i in range(4)),
        *(
            f"roi_head.bbox_head.{stage}.shared_convs.{i}.bn.{leaf}"
            for stage in range(3)
            for i in range(4)
            for leaf in BN
        ),
    ],
    "retinanet_scalable_vit_small": pairs(
        *(*MM_PYRAMID[:3], *MM_PYRAMID[4:], "neck.fpn_convs.4.conv", "bbox_head.retina_cls", "bbox_head.retina_reg"),
        *(f"bbox_head.{tower}_convs.{i}.conv" for tower in ("cls", "reg") for i in range(4)),
    ),
}
"""What the authors' checkpoints hold beside the backbone."""
ATTENTION = ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
DETR = [
    *(
        f"transformer.{half}coder.layers.{i}.{leaf}"
        for half, own in (
            ("en", pairs(*(f"self_attn.{part}" for part in ATTENTION), "norm1", "linear1", "linear2", "norm2")),
            (
                "de",
                [
                    *pairs(*(f"cross_attn.{part}" for part in ATTENTION), "self_attn.out_proj"),
                    *("self_attn.in_proj_weight", "self_attn.in_proj_bias"),
                    *pairs("norm1", "norm2", "norm3", "linear1", "linear2"),
                ],
            ),
        )
        for i in range(6)
        for leaf in own
    ),
    *pairs(*(f"input_proj.{level}.{i}" for level in range(4) for i in (0, 1))),
    "transformer.level_embed",
]
PREDICTORS = ("class_embed.{}", "bbox_embed.{}.layers.0", "bbox_embed.{}.layers.1", "bbox_embed.{}.layers.2")
OF_PLAIN = [*pairs("transformer.reference_points"), "query_embed.weight"]
OF_TWO_STAGES = pairs(
    *(f"transformer.{part}" for part in ("enc_output", "enc_output_norm", "pos_trans", "pos_trans_norm"))
)


def checkpoint(name: str, backbone: str, outside: list[str]) -> dict[str, torch.Tensor]:
    """Return a checkpoint of the authors' names; a tensor's shape is that of the one it becomes."""
    entry = DENSE.get(name)
    state = {
        entry.prefix + key: torch.zeros((), device="cpu").expand(shape)
        for key, shape in published_keys(backbone).items()
        if not key.startswith(("cls_head.", "head.", "norm."))
    }
    network = nasmvt.published(name)
    shapes = {key: tensor.shape for key, tensor in network.state_dict().items()}
    for key in outside:
        ours = next(n for n in entry.convert({key: torch.zeros(1, device="cpu")}, network) if n != "head.normalizer")
        state[key] = torch.zeros((), device="cpu").expand(shapes[ours])
    return state


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("retinanet_mpvit_small", "keys_mpvit_small"),
        ("mask_rcnn_mpvit_small", "keys_mpvit_small"),
        ("cascade_mask_rcnn_mpvit_small", "keys_mpvit_small"),
        ("mask_rcnn_vitae_v2_s", "keys_vitaev2_s"),
        ("cascade_mask_rcnn_vitae_v2_s", "keys_vitaev2_s"),
        ("retinanet_scalable_vit_small", "keys_scalablevit_small"),
    ],
)
def test_a_checkpoint_of_a_detector_loads_strictly(name: str, backbone: str) -> None:
    outside = OUTSIDE[name]
    with torch.device("meta"):
        state = checkpoint(name, backbone, outside)
        nasmvt.published(name, weights=state)
        with pytest.raises(UserError, match="has missing: "):
            nasmvt.published(name, weights={key: tensor for key, tensor in state.items() if key != outside[-1]})
        with pytest.raises(UserError, match=r"surplus: mask_headd\.weight"):
            nasmvt.published(name, weights={**state, "mask_headd.weight": torch.ones(1)})


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
@pytest.mark.parametrize("two_stage", [False, True])
def test_a_checkpoint_of_deformable_detr_loads_strictly(two_stage: bool) -> None:
    name = "deformable_detr_two_stage_mpvit_small" if two_stage else "deformable_detr_mpvit_small"
    number = 7 if two_stage else 1
    predictors = [pairs(*(part.format(i) for part in PREDICTORS)) for i in range(7)]
    outside = [*DETR, *(OF_TWO_STAGES if two_stage else OF_PLAIN), *(key for own in predictors[:number] for key in own)]
    with torch.device("meta"):
        state = checkpoint(name, "keys_mpvit_small", outside)
        if two_stage:
            state |= {f"transformer.decoder.{key}": state[key] for own in predictors for key in own}
        else:
            state |= {copy: state[key] for own in predictors[1:6] for copy, key in zip(own, predictors[0], strict=True)}
            assert len(state) == 1557
        nasmvt.published(name, weights=state)
        copy = "transformer.decoder.class_embed.1.bias" if two_stage else "class_embed.1.bias"
        other = torch.ones((), device="cpu").expand(state[copy].shape)
        with pytest.raises(UserError, match=r"are one tensor in this network, but differ in the checkpoint"):
            nasmvt.published(name, weights={**state, copy: other})
        with pytest.raises(UserError, match=r"surplus: class_embeds\.0\.weight"):
            nasmvt.published(name, weights={**state, "class_embeds.0.weight": torch.ones(1)})


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
@pytest.mark.parametrize(
    ("name", "keys", "classifier"),
    [
        ("segformer_lvt", "keys_lvt", ("norm.", "head.")),
        ("upernet_mpvit_small", "keys_mpvit_small", ("cls_head.",)),
        ("semantic_fpn_scalable_vit_small", "keys_scalablevit_small", ("head.",)),
    ],
)
def test_a_checkpoint_loads_strictly(name: str, keys: str, classifier: tuple[str, ...]) -> None:
    """The backbone's keys are those of the authors' classifier, behind `backbone.`; only shapes are compared."""
    path = PARITY / f"{keys}.json"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    with torch.device("meta"):
        network = nasmvt.published(name, classes=7)
        shapes = {key: shape for key, shape in json.loads(path.read_text()).items() if not key.startswith(classifier)}
        state = {f"backbone.{key}": torch.zeros((), device="cpu").expand(shape) for key, shape in shapes.items()}
        ours = {key: tensor for key, tensor in network.state_dict().items() if not key.startswith("backbone.")}
        theirs = rename(ours, mm_segmentation.NAMES[DENSE.get(name).head["type"]])
        assert len(theirs) == len(ours)
        assert not set(theirs) & set(ours)
        nasmvt.published(name, classes=7, weights={**state, **theirs})
        missing = next(key for key in theirs if key.endswith("conv_seg.bias"))
        del theirs[missing]
        with pytest.raises(UserError, match=r"must hold exactly the tensors of the network, but has missing: head\."):
            nasmvt.published(name, classes=7, weights={**state, **theirs})
        with pytest.raises(UserError, match=r"surplus: .*conv_seg\.wight"):
            nasmvt.published(name, classes=7, weights={**state, **theirs, "decode_head.conv_seg.wight": torch.ones(1)})


def test_classifiers_are_found_by_the_same_function_and_typos_get_a_hint() -> None:
    with torch.device("meta"):
        assert count(nasmvt.published("lvt")) == 3_429_092 + 512 + 257_000
    with pytest.raises(UserError, match="unknown published network 'segformer_lv'"):
        nasmvt.published("segformer_lv")
