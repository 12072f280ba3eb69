"""What a supernet begins with, and where it lies there."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.pipeline.initial import read_initial
from nasmvt.space import SearchSpace
from nasmvt.supernet import InitialConfig, Supernet
from nasmvt.supernet.initial import Initial, begin_with, digest_of
from nasmvt.supernet.lending import part
from tests.conftest import make_tasks, randomize
from tests.families.timm_reference import check_close, random_timm

LITE0 = {"depth": (2, 2, 3, 3, 4, 1), "kernel_size": (3, 5, 3, 5, 5, 3)}


def lite0_space(**changes) -> SearchSpace:
    """EfficientNet-Lite0 inside a larger network: one block more in stage 2, kernels of 5 and 7, expansions of 8."""
    choices, arch = {}, {}
    for stage, (depth, side) in enumerate(zip(LITE0["depth"], LITE0["kernel_size"], strict=True), 1):
        choices[f"depth{stage}"] = [depth, depth + 1] if stage == 2 else [depth]
        choices[f"expansion{stage}"] = {"options": [6, 8] if stage == 3 else [6], "per": f"depth{stage}"}
        choices[f"kernel_size{stage}"] = {"options": [side, side + 2] if stage == 4 else [side], "per": f"depth{stage}"}
        arch |= {f"depth{stage}": depth, f"expansion{stage}": [6] * depth, f"kernel_size{stage}": [side] * depth}
    fixed = {"same_padding": True, "norm_eps": 0.001}
    values = {"name": "lite0", "family": "efficientnet", "choices": choices, "fixed": fixed, "archs": {"file": arch}}
    return parse(SearchSpace, {**values, **changes}, "lite0")


@pytest.fixture(scope="module")
def reference():
    return random_timm("tf_efficientnet_lite0")


@pytest.fixture
def file(reference, tmp_path):
    path = tmp_path / "lite0.safetensors"
    save_file(reference.state_dict(), path)
    return path


def test_the_subnet_of_the_files_size_computes_what_the_published_network_computes(reference, file) -> None:
    """For every task, by its own tensors and by those that tasks share; what is larger is drawn anew."""
    space = lite0_space()
    supernet = Supernet(space, make_tasks())
    randomize(supernet, 1)
    filled = begin_with(supernet, read_initial(InitialConfig(weights=str(file)), supernet))
    maps = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    maps.load_state_dict({key: reference.state_dict()[key] for key in maps.state_dict()})
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for rule in ("all", "none"):
            model = supernet.materialize(space.named("file"), supernet.sharing(rule))
            given = {"cls": [reference.forward_features(images)], "det": maps(images), "seg": maps(images)}
            for task, theirs in given.items():
                for ours, expected in zip(model.task(task).eval().backbone(images), theirs, strict=True):
                    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()  # ours has channels last
    assert all(0.5 < known / whole < 1 for known, whole in filled.backbones.values())
    assert all(name.startswith("backbone.blocks.2.2.") for name in filled.fresh)
    assert filled.left_out == {"classifier.weight": "of the classifier", "classifier.bias": "of the classifier"}
    text = " | ".join(filled.sentences())
    assert "lite0.safetensors (arch file) fills the backbones: cls 9" in text
    assert "left out, of the classifier: classifier." in text


def vit_space() -> tuple[SearchSpace, dict]:
    """A narrow DeiT in a space of more heads, wider tokens and one block more, in windows for detection."""
    choices = {
        "depth": [4, 5],
        "embed_dim": [32, 40],
        "num_heads": {"options": [2, 3], "per": "depth"},
        "mlp_ratio": {"options": [4, 5], "per": "depth"},
    }
    arch = {"depth": 4, "embed_dim": 32, "num_heads": [2] * 4, "mlp_ratio": [4] * 4}
    fixed = {"head_dim": 16, "window_size": 1}
    values = {"name": "v", "family": "vit", "choices": choices, "fixed": fixed, "archs": {"file": arch}}
    settings = {"embed_dim": 32, "depth": 4, "num_heads": 2, "dynamic_img_size": True}
    return parse(SearchSpace, values, "v"), {"name": "deit_tiny_patch16_224", **settings}


def convnext_space() -> tuple[SearchSpace, dict]:
    """A narrow ConvNeXt in a space of wider stages and MLPs, and one block more."""
    choices, arch = {}, {}
    for stage, width in enumerate((8, 16, 24, 32), 1):
        choices[f"embed_dim{stage}"] = [width, width + 8]
        choices[f"depth{stage}"] = [1, 2]
        choices[f"mlp_ratio{stage}"] = {"options": [4, 5], "per": f"depth{stage}"}
        arch |= {f"embed_dim{stage}": width, f"depth{stage}": 1, f"mlp_ratio{stage}": [4]}
    values = {"name": "c", "family": "convnext", "choices": choices, "archs": {"file": arch}}
    return parse(SearchSpace, values, "c"), {"name": "convnext_tiny", "dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1)}


@pytest.mark.parametrize("make", [vit_space, convnext_space])
def test_a_smaller_network_of_timm_is_the_subnet_of_its_size(make, tmp_path) -> None:
    space, settings = make()
    published = random_timm(**settings)
    torch.save(published.state_dict(), tmp_path / "small.pth")
    supernet = Supernet(space, make_tasks())
    filled = begin_with(supernet, read_initial(InitialConfig(weights=str(tmp_path / "small.pth")), supernet))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for rule in ("all", "none"):
            model = supernet.materialize(space.named("file"), supernet.sharing(rule))
            pooled = published.forward_head(published.forward_features(images), pre_logits=True)
            check_close(model.task("cls").eval().backbone(images)[0].flatten(1), pooled)
            if settings["name"].startswith("convnext"):
                theirs = published.forward_intermediates(images, intermediates_only=True)
            else:
                theirs = published.forward_intermediates(images, indices=4, norm=True, intermediates_only=True)
            for ours, reference_map in zip(model.task("seg").eval().backbone(images), theirs, strict=True):
                check_close(ours, reference_map)
    assert all(0 < known / whole < 1 for known, whole in filled.backbones.values())


def test_a_middle_part_is_the_middle() -> None:
    kernels = torch.arange(2 * 5 * 5.0).view(2, 1, 5, 5)
    assert part(kernels, torch.Size([1, 1, 3, 3]), (2, 3)).tolist() == [[[[6, 7, 8], [11, 12, 13], [16, 17, 18]]]]
    assert part(kernels, torch.Size([2, 1, 3, 5]), (2,))[1, 0, :, 0].tolist() == [30, 35, 40]
    assert part(kernels, torch.Size([1, 1, 3, 3]))[0, 0, 0].tolist() == [0, 1, 2]


def test_gradients_reach_the_middle_and_the_score() -> None:
    """A kernel of 5 in one of 7, lent shared: the gradient of the stored kernel is zero around the middle."""
    space = lite0_space()
    supernet = Supernet(space, make_tasks())
    randomize(supernet)
    name = "backbone.blocks.4.0.conv_dw"
    network = supernet.subnet(space.named("file"), "det", supernet.sharing("all"))
    network.get_submodule(name).weight.sum().backward()
    stored = supernet.shared[f"{name}.weight".replace(".", "/")]
    inside = torch.zeros(7, 7)
    inside[1:6, 1:6] = 1
    assert torch.equal(stored.grad[0, 0], inside)
    own = supernet.networks["det"].get_parameter(f"{name}.weight")
    difference = (stored - own).detach()[:, :, 1:6, 1:6]
    torch.testing.assert_close(supernet.scores[name.replace(".", "/")].grad, difference.sum()[None])


def test_a_network_of_other_sizes_is_refused(tmp_path) -> None:
    supernet = Supernet(lite0_space(), make_tasks())
    path = tmp_path / "b0.pt"
    torch.save(timm.create_model("efficientnet_b0").state_dict(), path)
    with pytest.raises(UserError, match=r"b0\.pt is none of lite0 \(file, largest\): of file it has surplus: .*\.se\."):
        read_initial(InitialConfig(weights=str(path)), supernet)
    with pytest.raises(UserError, match="lite0 has no arch named 'fil'; did you mean 'file'"):
        read_initial(InitialConfig(weights=str(path), arch="fil"), supernet)


def test_a_tensor_that_has_no_place_is_refused(supernet) -> None:
    stored = supernet.networks["cls"].get_parameter("backbone.blocks.0.fc1.weight")
    wide = torch.zeros(stored.shape[0] + 1, stored.shape[1])
    for name, tensor, message in (
        ("backbone.blocks.0.fc1.weight", wide, r"backbone\.blocks\.0\.fc1\.weight of x is \(49, 24\)"),
        ("backbone.blocks.9.fc1.weight", wide, r"but x has others: backbone\.blocks\.9\.fc1\.weight"),
    ):
        initial = Initial(source="x", tensors={task: {name: tensor} for task in supernet.tasks}, digest="")
        before = digest_of(supernet.state_dict())
        with pytest.raises(UserError, match=message):
            begin_with(supernet, initial)
        assert digest_of(supernet.state_dict()) == before


def test_heads_are_filled_where_they_fit_and_tables_resized(supernet) -> None:
    table = torch.arange(16.0).view(1, 1, 4, 4)[..., ::2].repeat(1, 24, 1, 1)  # 4 x 2 for one of 4 x 4
    tensors = {
        "cls": {
            "head.fc.bias": torch.full((3,), 7.0),
            "head.fc.weight": torch.zeros(5, 5),
            "backbone.pos_embed": table,
        },
        "det": {},
        "seg": {},
    }
    filled = begin_with(supernet, Initial(source="x", tensors=tensors, digest=""))
    assert supernet.networks["cls"].head.fc.bias.tolist() == [7, 7, 7]
    assert filled.heads == {"cls": 1, "det": 0, "seg": 0}
    resized = supernet.networks["cls"].backbone.pos_embed.detach()[0, 0]
    torch.testing.assert_close(resized.mean(1), table[0, 0].mean(1))
    assert filled.backbones["cls"][0] == 24 * 16


def test_a_digest_is_of_names_shapes_and_values() -> None:
    state = {"a": torch.ones(2, 3), "b": torch.zeros(1)}
    assert digest_of(state) == digest_of(dict(reversed(state.items())))
    others = [
        {"a": torch.ones(3, 2), "b": torch.zeros(1)},
        {"a": torch.ones(2, 3), "c": torch.zeros(1)},
        {"a": torch.ones(2, 3), "b": torch.ones(1)},
    ]
    assert len({digest_of(state), *map(digest_of, others)}) == 4
