"""Many short strings in little memory.

A million Python strings take hundreds of megabytes, and forked loader processes copy them, since reading an object
changes its reference count. Here they are one block of bytes and one array.
"""

from array import array
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np


class Blobs(Sequence[bytes]):
    """Byte strings, stored back to back."""

    def __init__(self, blobs: Iterable[Any]) -> None:
        """Store the given items: bytes, or anything with a buffer."""
        self._bytes = bytearray()
        ends = array("q", [0])
        for blob in blobs:
            self._bytes += blob
            ends.append(len(self._bytes))
        self._ends = np.array(ends)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        """Return one item, or a list of items."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"there is no entry {index} among {len(self)}")
        start, end = self._ends[index % len(self)], self._ends[index % len(self) + 1]
        return bytes(self._bytes[start:end])

    def lengths(self) -> np.ndarray:
        """Return the number of bytes of each item."""
        return np.diff(self._ends)


class Names(Sequence[str]):
    """Strings, including file names that are not UTF-8."""

    def __init__(self, names: Iterable[str]) -> None:
        # surrogatepass: names that are not UTF-8 contain surrogates, see os.fsdecode
        self._blobs = Blobs(name.encode("utf-8", "surrogatepass") for name in names)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._blobs)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return one item, or a list of items."""
        if isinstance(index, slice):
            return [blob.decode("utf-8", "surrogatepass") for blob in self._blobs[index]]
        return self._blobs[index].decode("utf-8", "surrogatepass")
