"""nasmvt: one searched vision transformer for several vision tasks, delivered as one model."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["UserError", "__version__", "load"]

if TYPE_CHECKING:
    from nasmvt.errors import UserError
    from nasmvt.export.loading import load


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that `import nasmvt` and `nasmvt --help` do not load torch."""
    if name == "load":
        from nasmvt.export.loading import load

        return load
    if name == "UserError":
        from nasmvt.errors import UserError

        return UserError
    raise AttributeError(f"module 'nasmvt' has no attribute {name!r}")
