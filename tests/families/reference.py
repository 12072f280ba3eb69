"""The parity vectors of ../shared/parity, and the key map from the reference network to ours."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SHARED = Path(os.environ.get("NASMVT_SHARED", Path(__file__).parents[3] / "shared"))


def load_vectors(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    path = SHARED / "parity" / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"parity vectors {path} are absent: set NASMVT_SHARED")
    return json.loads(path.with_suffix(".json").read_text()), load_file(path)
