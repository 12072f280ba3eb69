"""Public names of packages that are imported on first use."""

import subprocess
import sys
from importlib import import_module

import pytest

LAZY = ["nasmvt", "nasmvt.cost", "nasmvt.data", "nasmvt.search", "nasmvt.tasks"]


def test_lazy_packages_load_neither_torch_nor_numpy() -> None:
    script = (
        f"import sys, {', '.join(LAZY)}; print([name for name in ('torch', 'numpy', 'pandas') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("package", LAZY)
def test_every_public_name_is_there(package: str) -> None:
    module = import_module(package)
    assert module.__all__
    for name in module.__all__:
        assert getattr(getattr(module, name), "__name__", name) == name


def test_other_names_are_not_there() -> None:
    import nasmvt.cost

    with pytest.raises(AttributeError, match=r"module 'nasmvt\.cost' has no attribute 'Bugdet'"):
        nasmvt.cost.Bugdet  # noqa: B018
