"""nasmvt: one searched vision transformer for several vision tasks, delivered as one model."""

from typing import TYPE_CHECKING

from nasmvt.lazy import importer

__version__ = "0.2.0"
__all__ = ["UserError", "__version__", "load"]

if TYPE_CHECKING:
    from nasmvt.errors import UserError
    from nasmvt.export.loading import load


__getattr__ = importer(__name__, {"load": "export.loading", "UserError": "errors"})
