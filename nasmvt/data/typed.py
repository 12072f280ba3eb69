"""Settings whose `type` says which class they are validated with."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from nasmvt.config import Config
from nasmvt.registry import Registry

C = TypeVar("C", bound=Config)


def by_type(registry: Registry[type[C]], default: str) -> Callable[[Any], Any]:
    """Return a validator that makes plain values settings of the class that is registered for their `type`.

    Args:
        registry: the classes by type.
        default: the type of values that name none.
    """

    def validate(values: Any) -> Any:
        name = values.get("type", default) if isinstance(values, Mapping) else None
        if not isinstance(name, str):
            return values
        return registry.get(registry.check(name)).model_validate(values)

    return validate
