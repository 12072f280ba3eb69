"""Which parameters decay, for every family, neck and head: what is not in these lists does, shared or specific."""

import re

import pytest
import torch

from nasmvt.config import parse
from nasmvt.families.registry import FAMILIES
from nasmvt.model import MultiTaskModel
from nasmvt.space import SearchSpace
from nasmvt.supernet import Supernet
from nasmvt.tasks.trainable import Trained
from tests.conftest import make_tasks
from tests.families.small_spaces import SMALL

N = r"\d+"
HEADS = [
    rf"neck\.levels\.{N}\.{N}\.1\.weight",
    r"head\.(bottleneck|fusion)\.1\.weight",
    rf"head\.(pools|laterals|fpn_convs)\.{N}\.1\.weight",
    rf"head\.roi_heads\.box_head\.{N}\.1\.weight",
    r"auxiliary\.conv\.1\.weight",
]
"""Norms of necks and heads."""
BACKBONES = {
    "vit_mvt": [
        r"pos_embed",
        rf"blocks\.{N}\.attn\.relative_bias",
        rf"blocks\.{N}\.norm[12]\.weight",
        r"norm\.weight",
        r"stem\.[147]\.weight",
        rf"stage_convs\.{N}\.bn[12]\.weight",
    ],
    "mpvit": [
        rf"stem\.{N}\.bn\.weight",
        rf"stages\.{N}\.aggregate\.bn\.weight",
        rf"stages\.{N}\.embeds\.{N}\.pwconv\.bn\.weight",
        rf"stages\.{N}\.local\.(conv1|conv2|dwconv)\.bn\.weight",
        rf"stages\.{N}\.paths\.{N}\.blocks\.{N}\.norm[12]\.weight",
    ],
    "scalable_vit": [
        rf"stages\.{N}\.pos_conv\.weight",
        rf"stages\.{N}\.patch_norm\.weight",
        rf"stages\.{N}\.blocks\.{N}\.(norm1|norm2|attn\.norm)\.weight",
        r"norm\.weight",
    ],
    "lvt": [
        rf"out_norms\.{N}\.weight",
        rf"stages\.{N}\.patch_embed\.norm\.weight",
        rf"stages\.{N}\.blocks\.{N}\.(norm1|norm2|attn\.reduce\.norm)\.weight",
    ],
    "vitae_v2": [
        rf"stages\.{N}\.reduction\.norm[12]\.weight",
        rf"stages\.{N}\.blocks\.{N}\.norm[12]\.weight",
        rf"stages\.{N}\.(reduction|blocks\.{N})\.convs\.[14]\.weight",
    ],
    "convnext": [
        r"stem\.1\.weight",
        rf"stages\.{N}\.downsample\.0\.weight",
        rf"stages\.{N}\.blocks\.{N}\.(norm\.weight|gamma)",
        r"norm\.weight",
    ],
    "vit": [
        r"(pos_embed|prefix_pos|cls_token|reg_token)",
        rf"blocks\.{N}\.norm[12]\.weight",
        rf"blocks\.{N}\.ls[12]\.gamma",
        r"norm\.weight",
    ],
    "efficientnet": [
        r"bn[12]\.weight",
        rf"blocks\.{N}\.{N}\.bn[123]\.weight",
    ],
}
"""Norms, position tables and relative position biases of backbones. Biases named `bias` are free in all of them."""


def free_by_hand(family: str, plain: str) -> bool:
    patterns = [*HEADS, *(rf"backbone\.{pattern}" for pattern in BACKBONES[family]), r".*\.bias"]
    return any(re.fullmatch(pattern, plain) for pattern in patterns)


def plain_name(name: str) -> str:
    """Return the name in a plain network of `networks.<task>.<name>` or `shared.<name with slashes>`."""
    if name.startswith("shared."):
        return name.removeprefix("shared.").replace("/", ".")
    return name.split(".", 2)[2]


def wrong(family: str, trained: list[Trained]) -> list[str]:
    return [
        item.name
        for item in trained
        if not item.name.startswith("scores.") and item.decays == free_by_hand(family, plain_name(item.name))
    ]


def shared_space(family: str) -> SearchSpace:
    """A small space in which everything of the backbone may be shared."""
    space = next(space for space in SMALL.values() if space.family == family)
    return parse(
        SearchSpace,
        {**space.model_dump(mode="json"), "roles": {"backbone.**": "adaptive", "backbone.blocks.*.attn": "specific"}},
        family,
    )


def test_the_lists_cover_every_family():
    shipped = {name for name in FAMILIES if FAMILIES.get(name).build.__module__.startswith("nasmvt.")} - {"timm"}
    assert BACKBONES.keys() == shipped


@pytest.mark.parametrize("family", BACKBONES)
def test_what_decays_by_name_is_what_the_list_says(family):
    space, tasks = shared_space(family), make_tasks()
    with torch.device("meta"):
        supernet = Supernet(space, tasks)
    trained = list(supernet.trained())
    assert {id(item.parameter) for item in trained} == {id(parameter) for parameter in supernet.parameters()}
    assert len(trained) == len({item.name for item in trained})
    assert wrong(family, trained) == []
    shared = [item for item in trained if item.name.startswith("shared.")]
    assert any(item.decays for item in shared)
    assert any(not item.decays for item in shared)
    assert not any(item.decays for item in trained if item.name.startswith("scores."))
    for pattern in BACKBONES[family]:  # nothing in the list is superfluous
        assert any(re.fullmatch(rf"backbone\.{pattern}", plain_name(item.name)) for item in trained), pattern


@pytest.mark.parametrize("family", BACKBONES)
def test_a_model_with_tied_tensors_decays_alike(family):
    space, tasks = shared_space(family), make_tasks()
    model = MultiTaskModel.fresh(space, tasks, space.smallest, Supernet(space, tasks).sharing("all"))
    trained = list(model.trained())
    assert {id(item.parameter) for item in trained} == {id(parameter) for parameter in model.parameters()}
    assert wrong(family, trained) == []


def test_two_dimensional_biases_do_not_decay_when_shared():
    with torch.device("meta"):
        supernet = Supernet(shared_space("scalable_vit"), make_tasks())
    found = [item for item in supernet.trained() if re.search(r"attn[./][qk][./]bias$", item.name)]
    assert {item.parameter.ndim for item in found} == {2}
    assert {item.name.split(".")[0] for item in found} == {"networks", "shared"}
    assert not any(item.decays for item in found)
