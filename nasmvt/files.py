"""Files appear whole or not at all, and damaged ones are known by what reading them raises."""

import json
import os
import pickle
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DAMAGED: tuple[type[Exception], ...] = (
    *(OSError, RuntimeError, EOFError, pickle.UnpicklingError, struct.error),
    *(ValueError, LookupError, TypeError, AttributeError, AssertionError),  # of a pickle with changed bytes
)
"""What `torch.load` raises on files that are no checkpoints, cut off or damaged."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it into place when the block ends without an error.

    The temporary name keeps the suffix of `path`, since writers of images go by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")
