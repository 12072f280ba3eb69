"""Atomic writes, and the exceptions that damaged files raise."""

import errno
import fcntl
import json
import os
import pickle
import secrets
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nasmvt.errors import UserError

DAMAGED: tuple[type[Exception], ...] = (
    *(OSError, RuntimeError, EOFError, pickle.UnpicklingError, struct.error),
    *(ValueError, LookupError, TypeError, AttributeError, AssertionError),  # of a pickle with changed bytes
)
"""What `torch.load` raises on files that are no checkpoints, truncated or damaged."""


_PATIENCE = 3.0
"""Seconds in which the loader workers of a killed process have ended."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it into place when the block ends without an error.

    The temporary name is nobody else's and keeps the suffix of `path`, since writers of images go by it. The file has
    the rights that the umask gives, whatever its writer sets. The content is on the disk before the name is, so that a
    machine that loses power leaves the old file or the new one. What a killed process left is removed by the next
    writer of the same path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(path, lambda name: name.touch(exist_ok=False)) as temporary:
        rights = temporary.stat().st_mode
        yield temporary
        if temporary.stat().st_mode != rights:
            temporary.chmod(rights)
        _flush(temporary)
        temporary.replace(path)
    _flush(path.parent)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; it becomes `folder` when the block ends without an error.

    Raises:
        UserError: if the folder exists, also if another process made it meanwhile.
    """
    taken = UserError(f"{folder} exists: give another --out, or delete it")
    if folder.exists() or folder.is_symlink():
        raise taken
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(folder, Path.mkdir) as temporary:
        yield temporary
        try:
            temporary.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            raise taken from None


@contextmanager
def _temporary(path: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """Yield a hidden file or folder beside `path`, made by `make` and locked meanwhile; the block moves it away.

    Its name is always the same, so that what a killed process left is found: nobody holds its lock any more. While
    another process writes the same path, and where the file system has no locks, it is a random one.
    """
    stem = os.fsdecode(os.fsencode(path.stem)[:80])
    temporary = path.with_name(f".{stem}.part{path.suffix}")
    _remove_abandoned(temporary)
    lock = None
    try:
        while lock is None:
            try:
                make(temporary)
                lock = _locked(temporary, wait=True)
            except FileExistsError:
                temporary = path.with_name(f".{stem}.{secrets.token_hex(4)}{path.suffix}")
        yield temporary
    except BaseException as error:
        _remove(temporary)
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename = str(path)  # whose name the user knows
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _remove_abandoned(path: Path) -> None:
    try:
        lock = _locked(path, wait=False)
    except OSError:  # there is nothing, or somebody writes it, or it can't be locked here
        return
    if lock is not None:
        _remove(path)
        os.close(lock)


def _locked(path: Path, *, wait: bool) -> int | None:
    """Return the descriptor of a file or folder, locked if the file system can; None if it was removed meanwhile.

    Raises:
        OSError: if it is not waited for a lock that can't be had now.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        if not wait:
            os.close(descriptor)
            raise
    try:
        if os.path.samestat(path.stat(), os.fstat(descriptor)):
            return descriptor
    except FileNotFoundError:
        pass
    os.close(descriptor)
    return None


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes from holding a folder during the block; it is made if need be, and removed if left empty.

    A process that was killed lets go at once. Where the file system has no locks, nobody is kept away.

    Raises:
        UserError: if another process holds it for longer than its loader workers need to end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, folder)
        try:
            yield
        finally:
            with suppress(OSError):  # it holds files
                folder.rmdir()
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise UserError(
                    f"{folder} is written by one process at a time, but another one is at it: wait for it, or end it"
                ) from None
            time.sleep(0.1)
        except OSError:  # no locks here
            return
        else:
            return


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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
