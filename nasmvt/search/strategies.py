"""Search algorithms by name; your own by `module:name`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from nasmvt.registry import Registry

if TYPE_CHECKING:
    from nasmvt.search.searcher import Searcher

S = TypeVar("S", bound="type[Searcher]")

SEARCHERS: "Registry[type[Searcher]]" = Registry(
    "search algorithm", [f"nasmvt.search.{name}" for name in ("evolution", "predictor", "random_search", "nsga2")]
)
"""What `algorithm` may say."""


def register_searcher(name: str) -> Callable[[S], S]:
    """Register a subclass of `Searcher` as the algorithm `name`.

    Raises:
        UserError: when it decorates, if another module has registered that name.
    """

    def decorate(searcher: S) -> S:
        SEARCHERS.add(name, searcher, searcher.__module__)
        return searcher

    return decorate
