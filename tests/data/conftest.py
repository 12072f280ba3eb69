import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """The folder of a real data set by name; the test is skipped, by that name, where it is absent."""
    default = Path(__file__).parents[2].parent / "shared"
    root = Path(os.environ.get("NASMVT_SHARED", default)) / "data"

    def find(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"the data set {name} is not in {root} (set NASMVT_SHARED)")
        return root / name

    return find
