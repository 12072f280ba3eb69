"""Reading checkpoints of others: any file is read or refused in one sentence."""

import random

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nasmvt.errors import UserError
from nasmvt.families.reference import check_fit, load_reference, read_state, rename

STATE = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)}


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_state_dicts_are_found(wrap, prefix, tmp_path) -> None:
    torch.save(wrap({prefix + key: tensor for key, tensor in STATE.items()}), tmp_path / "a.pth")
    assert read_state(tmp_path / "a.pth").keys() == STATE.keys()


def test_safetensors_are_read(tmp_path) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    assert torch.equal(read_state(tmp_path / "a.safetensors")["a.weight"], STATE["a.weight"])


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_files_are_refused(tmp_path) -> None:
    """Cut off, with changed bytes, or something else altogether: a sentence or, by luck, tensors, never a traceback."""
    torch.save(STATE, tmp_path / "whole.pth")
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    draw, path, refused = random.Random(0), tmp_path / "damaged.pth", 0
    for source in (tmp_path / "whole.pth", tmp_path / "old.pth"):
        content = source.read_bytes()
        for _ in range(150):
            changed = bytearray(content[: draw.randrange(1, len(content) + 1)])
            for _ in range(3):
                changed[draw.randrange(len(changed))] = draw.randrange(256)
            path.write_bytes(changed)
            try:
                read_state(path)
            except UserError:
                refused += 1
    assert refused > 250
    for text in ("Step 1\n", "([{", "a", ""):
        path.write_text(text)
        with pytest.raises(UserError, match=r"must be a checkpoint of plain tensors|must hold tensors by name"):
            read_state(path)
    with pytest.raises(UserError, match="there is no checkpoint"):
        read_state(tmp_path / "absent.pth")


def test_the_first_rule_that_fits_the_whole_key_renames_it() -> None:
    rules = [(r"a\.bias", None), (r"a\.(\w+)", r"b.\1"), (r"a\.weight", "never")]
    assert list(rename({**STATE, "a.weight.x": torch.ones(1)}, rules)) == ["b.weight", "a.weight.x"]


def test_what_does_not_fit_is_named() -> None:
    wanted = {"a.weight": torch.ones(2, 3), "c": torch.ones(1)}
    with pytest.raises(UserError, match=r"^f must .* missing: c; surplus: a\.bias: check its size$"):
        check_fit(STATE, wanted, "f")
    with pytest.raises(UserError, match=r"of another shape: a\.weight \(2, 3\) instead of \(3, 3\)"):
        check_fit(STATE, {**STATE, "a.weight": torch.ones(3, 3)}, "f")
    with pytest.raises(UserError, match=r"missing: k0, .*, k11 and 8 more"):
        check_fit({}, {f"k{i}": torch.ones(1) for i in range(20)}, "f")


def test_what_fits_is_loaded() -> None:
    layer = nn.Linear(3, 2)
    load_reference(layer, STATE, lambda state, network: rename(state, [(r"a\.(.+)", r"\1")]))
    assert torch.equal(layer.weight, STATE["a.weight"])
