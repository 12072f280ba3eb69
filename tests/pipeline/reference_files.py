"""Checkpoints like those of ViT-MVT's authors, made from the lists of their keys.

A tensor is random along its first dimension and constant along the others, stored as a view: the files are small.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.families.reference import SHARED

TASKS = ("cls", "det", "seg")


def key_list(size: str, task: str) -> list[dict]:
    """Return the keys of a published checkpoint: `key`, `shape`, `dtype`, `kind` and `group`."""
    path = SHARED / "parity" / f"keys_{size}_{task}.json"
    if not path.is_file():
        pytest.skip(f"the list of keys {path} is absent: set NASMVT_SHARED")
    return json.loads(path.read_text())["keys"]


def make_state(size: str, task: str, score: float | None = None) -> dict[str, Tensor]:
    """Return a checkpoint: shared tensors equal in all tasks, specific ones and heads not.

    Args:
        size: tiny, small or base.
        task: cls, det or seg.
        score: of every adaptive layer; None: random, but the same in all tasks.
    """
    state = {}
    for entry in key_list(size, task):
        key, shape = entry["key"], entry["shape"]
        common = entry["group"] in {"shared", "adaptive"} and ".specific_" not in key
        generator = torch.Generator().manual_seed(zlib.crc32((key if common else task + key).encode()))
        drawn = torch.rand([*shape[:1], *[1] * (len(shape) - 1)], generator=generator)
        if entry["dtype"] == "int64":
            tensor = torch.zeros(shape, dtype=torch.int64)[:1].expand(shape) if shape else torch.tensor(7)
        elif key.endswith(".score"):
            tensor = drawn if score is None else torch.full((1,), score)
        elif key.endswith("running_var") or (key.endswith("weight") and len(shape) == 1):
            tensor = drawn * 0.2 + 0.9
        else:
            tensor = ((drawn - 0.5) * 4 / max(torch.Size(shape[1:]).numel(), 8)).expand(shape)  # no values explode
        state[f"model.{key}"] = tensor
    return state


def write(state: Mapping[str, Tensor], path: Path) -> Path:
    """Write a checkpoint as mmcv does: the state dict beside other things."""
    torch.save({"meta": {"epoch": 1}, "state_dict": dict(state)}, path)
    return path


def expected_total(size: str, scores_by_task: Mapping[str, Mapping[str, Tensor]], heads: list[int]) -> int:
    """Return the parameters of the merged model, counted over the key lists alone.

    What is specific by score counts for every task, what is in the group `shared` or shared by score once, and a
    relative table by the columns of its block.
    """
    total, once = 0, {}
    for task, state in scores_by_task.items():
        for entry in key_list(size, task):
            key, count = entry["key"], torch.Size(entry["shape"]).numel()
            layer = key.rpartition(".")[0]
            if entry["kind"] != "param" or ".specific_" in key or key.endswith(".score"):
                continue
            if key.endswith("relative_position_bias_table"):
                total += entry["shape"][0] * heads[int(key.split(".")[2])]
            elif entry["group"] == "shared" or (
                entry["group"] == "adaptive" and state[f"model.{layer}.score"].item() > 0.5
            ):
                once[key] = count
            else:
                total += count
    return total + sum(once.values())
