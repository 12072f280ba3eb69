"""`nasmvt import-reference`: what it prints, and what it refuses, leaving nothing behind."""

import json
from pathlib import Path

import pytest
import torch

from nasmvt.pipeline.import_reference import plan_import, read_checkpoint
from nasmvt.space import load_space
from tests.cli.test_help import help_of
from tests.pipeline.reference_files import make_state, write

QKV = "backbone.layers.0.attn.qkv"


@pytest.fixture(scope="module")
def states():
    return {task: make_state("tiny", task) for task in ("cls", "seg")}


@pytest.fixture
def command(nasmvt, states, tmp_path):
    """Run the command on the Tiny checkpoints of two tasks, one of them changed."""

    def words(change=None, *, task="seg", space="vit_mvt_tiny", out="out"):
        found = {name: dict(state) for name, state in states.items()}
        if change is not None:
            change(found[task])
        files = {name: write(state, tmp_path / f"{name}.pth") for name, state in found.items()}
        return [
            *("import-reference", "--space", space, "--out", tmp_path / out),
            *(word for name, path in files.items() for word in (f"--{name}", path)),
        ]

    return words


def refused(nasmvt, words, tmp_path: Path) -> str:
    sentence = nasmvt.refused(*words)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix not in {".pth", ".txt"}) == []
    return sentence


def removed(key):
    return lambda state: state.pop(f"model.{key}")


def put(key, tensor, prefix="model."):
    return lambda state: state.update({f"{prefix}{key}": tensor})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (removed("backbone.layers.3.fc1.score"), ["seg.pth", "missing: model.backbone.layers.3.fc1.score"]),
        (removed("decode_head.fpn_bottleneck.bn.running_var"), ["missing: model.decode_head.fpn_bottleneck.bn"]),
        (removed("backbone.ln1.bias"), ["missing: model.backbone.ln1.bias"]),
        (removed("backbone.pos_embed.cls_token"), ["pos_embed.cls_token", "holds none"]),
        (removed("backbone.layers.2.fc1.weight"), ["seg.pth must hold layers.2.fc1.weight"]),
        (removed("decode_head.conv_seg.weight"), ["is it a segmentation checkpoint?"]),
        (put("backbone.layers.0.extra.weight", torch.ones(1)), ["surplus: model.backbone.layers.0.extra.weight"]),
        (put("decode_head.more", torch.ones(1)), ["surplus: model.decode_head.more"]),
        (put("ema.decay", torch.ones(1), prefix=""), ["surplus: ema.decay"]),
        (put("backbone.layers.0.ln1.weight", torch.ones(3)), ["layers.0.ln1.weight (3,) instead of (216,)"]),
        (put("backbone.pos_embed.cls_token", torch.ones(1, 10, 216)), ["square grid", "(1, 10, 216)"]),
        (put(f"{QKV}.weight", torch.ones(768, 216)), ["one arch", "cls.pth has num_heads=(3", "seg.pth num_heads=(4"]),
        (put(f"{QKV}.weight", torch.ones(960, 216)), ["num_heads=5, but vit_mvt_tiny offers 3, 4"]),
        (put("backbone.layers.5.fc1.weight", torch.ones(99, 216)), ["mlp_ratio=", "offers 3, 3.5, 4"]),
        (
            put("backbone.layers.6.attn.relative_position_bias_table", torch.ones(3969, 3)),
            ["layers.6.attn.relative_position_bias_table (3969, 3) instead of (3969, 4)"],
        ),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused_by_name(nasmvt, command, tmp_path, change, words):
    sentence = refused(nasmvt, command(change), tmp_path)
    assert all(word in sentence for word in words), sentence


def test_an_arch_outside_of_the_space_is_refused(nasmvt, command, tmp_path):
    sentence = refused(nasmvt, command(space="vit_mvt_small"), tmp_path)
    assert "embed_dim=216, but vit_mvt_small offers 320, 384, 448" in sentence


def test_what_is_no_checkpoint_is_refused(nasmvt, command, tmp_path):
    words = command()
    for content in (b"not a checkpoint", b""):
        (tmp_path / "seg.pth").write_bytes(content)
        assert "seg.pth must be a checkpoint" in refused(nasmvt, words, tmp_path)
    torch.save({"epoch": 1}, tmp_path / "seg.pth")
    assert "must hold tensors by name" in refused(nasmvt, words, tmp_path)
    (tmp_path / "seg.pth").unlink()
    assert "seg.pth" in refused(nasmvt, words, tmp_path)


def test_an_existing_folder_and_a_single_file_are_refused(nasmvt, command, tmp_path):
    (tmp_path / "there.txt").write_text("mine")
    assert "there.txt exists" in refused(nasmvt, command(out="there.txt"), tmp_path)
    assert (tmp_path / "there.txt").read_text() == "mine"
    one = command()[:-2]
    assert "two or three tasks, but there is cls" in refused(nasmvt, one, tmp_path)


def test_options_that_make_no_sense_are_refused(nasmvt, command, tmp_path):
    words = command()
    assert "--qkv must be one of specific, reference" in refused(nasmvt, [*words, "--qkv", "both"], tmp_path)
    assert "TASK=FILE" in refused(nasmvt, [*words, "--classes", "names.txt"], tmp_path)
    names = tmp_path / "names.txt"
    assert "names.txt" in refused(nasmvt, [*words, "--classes", f"seg={names}"], tmp_path)
    names.write_text("sky\nsea\n")
    assert "150 classes, but 2" in refused(nasmvt, [*words, "--classes", f"seg={names}"], tmp_path)
    assert "did you mean 'seg'" in refused(nasmvt, [*words, "--classes", f"sgg={names}"], tmp_path)
    assert "det is not" in refused(nasmvt, [*words, "--classes", f"det={names}"], tmp_path)


def test_two_checkpoints_become_a_folder_and_a_report(nasmvt, command, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"thing {i}" for i in range(150)))
    words = command()
    printed = nasmvt(*words, "--classes", f"seg={names}", "--qkv", "reference")
    report = json.loads((tmp_path / "out" / "import.json").read_text())
    files = {task: read_checkpoint(tmp_path / f"{task}.pth") for task in ("cls", "seg")}
    assert report == plan_import(files, load_space("vit_mvt_tiny"), qkv="reference").report
    parameters = report["parameters"]
    for total in (parameters["in the files"], parameters["networks alone"], parameters["merged"]):
        assert f"{total['total']:,}" in printed
    assert f"{report['merged']['layers']} layers merged" in printed
    assert "blocks.*.attn.qkv" in printed
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tasks"]["seg"]["classes"][7] == "thing 7"
    assert "there is no folder" in nasmvt.refused("evaluate", tmp_path / "out", "--set", "tasks.cls.data.root=nowhere")


def test_help_gives_an_example():
    lines = help_of("import-reference").splitlines()
    assert lines[lines.index("  Example:") + 1].startswith("    nasmvt import-reference --space ")
