"""nasmvt: one searched vision transformer for several vision tasks, delivered as one model."""

from typing import TYPE_CHECKING

from nasmvt.lazy import lazy_names

__version__ = "0.9.0"

if TYPE_CHECKING:
    from nasmvt.errors import UserError as UserError
    from nasmvt.export.loading import load as load
    from nasmvt.tasks.published import published as published

__getattr__, __all__ = lazy_names(__name__)
