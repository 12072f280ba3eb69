"""Published dense networks: exact parameters by part, and checkpoints that load strictly."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

import nasmvt
from nasmvt.errors import UserError
from nasmvt.families.reference import rename
from nasmvt.heads import mm_segmentation
from nasmvt.tasks import TaskNetwork
from nasmvt.tasks.published import DENSE

PARITY = Path(os.environ.get("NASMVT_SHARED", "../shared")) / "parity"
SEGMENTATION = {
    "upernet_mpvit_small": (51_588_020, 22_603_400, 28_282_006, 702_614),
    "upernet_mpvit_base": (105_295_196, 74_364_976, 29_785_238, 1_144_982),
    "upernet_scalable_vit_small": (56_101_660, 25_794_032, 29_678_742, 628_886),
    "upernet_scalable_vit_base": (107_047_772, 74_626_608, 31_497_366, 923_798),
    "upernet_scalable_vit_large": (135_519_948, 100_985_248, 33_315_990, 1_218_710),
    "semantic_fpn_scalable_vit_small": (30_044_294, 25_794_032, 4_250_262, 0),
    "semantic_fpn_scalable_vit_base": (78_999_750, 74_626_608, 4_373_142, 0),
    "semantic_fpn_scalable_vit_large": (105_481_270, 100_985_248, 4_496_022, 0),
    "segformer_lvt": (3_889_936, 3_429_092, 460_844, 0),
}
"""In all, of the backbone, of neck and head, of the auxiliary head."""


def count(*modules: nn.Module | None) -> int:
    return sum(p.numel() for module in modules if module is not None for p in module.parameters())


@pytest.mark.parametrize("name", SEGMENTATION)
def test_parameters_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        network = nasmvt.published(name)
    assert isinstance(network, TaskNetwork)
    parts = (count(network.backbone), count(network.neck, network.head), count(network.auxiliary))
    assert (count(network), *parts) == SEGMENTATION[name]


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
