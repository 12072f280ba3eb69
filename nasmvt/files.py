"""Atomic writes, and the exceptions that damaged files raise."""

import errno
import json
import os
import pickle
import secrets
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nasmvt.errors import UserError

DAMAGED: tuple[type[Exception], ...] = (
    *(OSError, RuntimeError, EOFError, pickle.UnpicklingError, struct.error),
    *(ValueError, LookupError, TypeError, AttributeError, AssertionError),  # of a pickle with changed bytes
)
"""What `torch.load` raises on files that are no checkpoints, truncated or damaged."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it into place when the block ends without an error.

    The temporary name is nobody else's and keeps the suffix of `path`, since writers of images go by it. The file has
    the rights that the umask gives, whatever its writer sets. The content is on the disk before the name is, so that a
    machine that loses power leaves the old file or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem[:80]}.{secrets.token_hex(4)}{path.suffix}")
    temporary.touch()
    rights = temporary.stat().st_mode
    try:
        yield temporary
        if temporary.stat().st_mode != rights:
            temporary.chmod(rights)
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; it becomes `folder` when the block ends without an error.

    Raises:
        UserError: if the folder exists, also if another process made it meanwhile.
    """
    taken = UserError(f"{folder} exists: give another --out, or delete it")
    if folder.exists() or folder.is_symlink():
        raise taken
    temporary = folder.with_name(f".{folder.name[:80]}.{secrets.token_hex(4)}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        try:
            temporary.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            raise taken from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flush(path: Path) -> None:
    """Wait until a file or the names in a folder are on the disk, where the file system can say so."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems have no fsync of folders
            raise
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")
