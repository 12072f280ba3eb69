"""The plain vision transformer against timm's."""

import pytest
import timm
import torch

from nasmvt.errors import UserError
from nasmvt.families import ViT, family, published
from nasmvt.families.layers import Classifier, MeanLinear
from nasmvt.families.vit import convert
from nasmvt.space import load_space
from tests.families.timm_reference import check_close, check_outputs, random_timm

NETWORKS = {
    "deit_tiny_patch16_224": [(224, 224), (96, 64), (160, 160)],
    "vit_small_patch14_dinov2": [(98, 70), (112, 112)],
    "vit_small_patch14_reg4_dinov2": [(98, 70), (112, 112)],
    "deit_tiny_distilled_patch16_224": [(224, 224), (96, 64)],
    "vit_wee_patch16_reg1_gap_256": [(96, 96), (96, 64)],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_timms(name) -> None:
    reference = random_timm(name, dynamic_img_size=True, num_classes=10)
    check_outputs(name, reference, NETWORKS[name], classes=10)


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_are_timms(name) -> None:
    """The maps of a dense task, after each quarter of the depth, normed; class and register tokens are left out."""
    reference = random_timm(name, dynamic_img_size=True, num_classes=0)
    ours = published(name, classes=None, out_blocks=(2, 5, 8, 11)).eval()
    tensors = convert(reference.state_dict(), Classifier(ours, torch.nn.Identity()))
    ours.load_state_dict({key: tensors[f"backbone.{key}"] for key in ours.state_dict()})
    for size in NETWORKS[name][-2:]:
        images = torch.randn(1, 3, *size)
        with torch.no_grad():
            theirs = reference.forward_intermediates(images, indices=[2, 5, 8, 11], norm=True, intermediates_only=True)
            for got, want in zip(ours(images), theirs, strict=True):
                check_close(got, want)


def test_tables_are_resized_when_weights_are_read() -> None:
    """A network for other images has the table that timm computes in each forward pass."""
    reference = random_timm("deit_tiny_patch16_224", dynamic_img_size=True)
    ours = published("deit_tiny_patch16_224", weights=reference.state_dict(), image_size=(96, 64)).eval()
    assert ours.backbone.pos_embed.shape == (1, 192, 6, 4)
    images = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        check_close(ours(images), reference(images))


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_the_named_arch_counts_what_timm_counts(size) -> None:
    space = load_space(f"vit_{size}")
    arch = space.named("published")
    with torch.device("meta"):
        backbone = family("vit").build(arch, kind="classification", image_size=(224, 224), **space.fixed)
        ours = Classifier(backbone, MeanLinear(backbone.widths[-1], 1000))
        theirs = timm.create_model(f"deit_{size}_patch16_224")
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_windows_see_their_own_tokens_alone_but_for_global_blocks() -> None:
    """Patches of 8 pixels in windows of 2 x 2: a patch of the first window changes that window, or everything."""
    images = torch.rand(1, 3, 40, 32)
    for blocks, reached in (((), 4), ((1,), 20)):
        torch.manual_seed(0)
        sizes = {"embed_dim": 8, "num_heads": (2, 2), "mlp_ratio": (2, 2), "head_dim": 4, "patch_size": 8}
        net = ViT(image_size=(32, 32), **sizes, window_size=2, global_blocks=blocks, out_blocks=(1,)).eval()
        assert not [name for name, _ in net.named_parameters() if "token" in name]
        changed = images.clone()
        changed[..., :8, :8] = 0
        with torch.no_grad():
            difference = (net(images)[0] - net(changed)[0]).abs().sum(1)[0]
        assert difference.shape == (5, 4)
        assert int((difference > 0).sum()) == reached
        assert (difference[:2, :2] > 0).all()


def test_images_are_padded_to_whole_patches() -> None:
    sizes = {"embed_dim": 8, "num_heads": (1,), "mlp_ratio": (1,), "head_dim": 8, "patch_size": 14}
    net = ViT(image_size=(28, 28), **sizes, out_blocks=(0,)).eval()
    images = torch.rand(1, 3, 30, 27)
    whole = torch.nn.functional.pad(images, (0, 1, 0, 12))
    with torch.no_grad():
        assert torch.equal(net(images)[0], net(whole)[0])
    assert net(images)[0].shape == (1, 8, 3, 2)


def test_what_is_not_of_this_kind_is_refused() -> None:
    with pytest.raises(UserError, match=r"surplus: .*dist_token"):
        published("deit_small_patch16_224", weights=timm.create_model("deit_small_distilled_patch16_224").state_dict())
    with pytest.raises(UserError, match="needs images of at least a patch"):
        ViT(image_size=(8, 32), embed_dim=8, num_heads=(1,), mlp_ratio=(1,))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_tiny_r_s16_p8_224", "the layers .*HybridEmbed"),
        ("vit_small_patch16_18x2_224", "the layers ParallelThingsBlock"),
        ("vit_so150m_patch16_reg4_map_256", "the layers AttentionPoolLatent"),
        ("vit_small_patch16_dinov3", "the class Eva, where families know ConvNeXt"),
    ],
)
def test_networks_of_timm_with_other_parts_are_refused(name, reason) -> None:
    with pytest.raises(UserError, match=f"makes the networks of timm that consist of its own layers.*has {reason}"):
        published(name)


def test_biases_of_queries_keys_and_values_are_read_off_timms_network() -> None:
    with torch.device("meta"):
        ours = published("vit_medium_patch16_gap_240", classes=None)
    assert all(block.attn.qkv.bias is None for block in ours.blocks)


def test_a_mean_over_patches_is_normed_before_or_after_it() -> None:
    """CLIP's norm before the blocks and its activation, and SigLIP's mean over normed patches."""
    settings = {"class_token": False, "global_pool": "avg", "patch_size": 8, "embed_dim": 32, "num_heads": 2}
    for fc_norm in (False, True):
        for act, name in (("quick_gelu", "quick_gelu"), ("gelu_tanh", "gelu_tanh")):
            reference = random_timm(
                "vit_tiny_patch16_224",
                **settings,
                depth=2,
                img_size=32,
                fc_norm=fc_norm,
                pre_norm=True,
                act_layer=act,
                qkv_bias=fc_norm,
            )
            ours = published(
                "vit_tiny_patch16_224",
                weights=reference.state_dict(),
                image_size=(32, 32),
                patch_size=8,
                embed_dim=32,
                num_heads=(2, 2),
                mlp_ratio=(4, 4),
                head_dim=16,
                class_tokens=0,
                first_norm=True,
                norm_after_pooling=fc_norm,
                qkv_bias=fc_norm,
                act=name,
            ).eval()
            images = torch.randn(1, 3, 32, 32)
            with torch.no_grad():
                check_close(ours(images), reference(images))
