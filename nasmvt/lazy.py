"""Public names of a package that are imported on first use, so that importing the package stays fast."""

import ast
import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy_names(package: str) -> tuple[Callable[[str], Any], list[str]]:
    """Return a package's `__getattr__` and `__all__`; each name is imported when it is first used.

    The names are those that the package's file imports under `if TYPE_CHECKING:`, so that they are written once, where
    type checkers and editors read them as well (as stubs are read by scientific-python's lazy_loader).

    Args:
        package: the `__name__` of the module that is being imported.
    """
    tree = ast.parse(inspect.getsource(sys.modules[package]))
    imports = [node for block in tree.body if isinstance(block, ast.If) for node in block.body]
    homes = {
        alias.asname or alias.name: str(node.module)
        for node in imports
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return get, sorted(homes)
