"""Names that differ in nothing but the Unicode normal form.

Letters with accents are one character or two. macOS, and archives made there, write two where others write one, so
that the names in a text file and those on the disk, or the class folders of two splits, need not be equal.
"""

import unicodedata
from collections.abc import Iterable
from functools import cached_property


class Spellings:
    """Finds names as they are written, or else in another normal form.

    Args:
        names: those that there are.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)

    def find(self, name: str) -> str | None:
        """Return the name that is meant; None if there is none, or if several are spelled that way."""
        if name in self._names:
            return name
        return self._composed.get(unicodedata.normalize("NFC", name))

    @cached_property
    def _composed(self) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for name in self._names:
            composed = unicodedata.normalize("NFC", name)
            found[composed] = None if composed in found else name
        return found
