"""Ctrl-C, SIGTERM and SIGHUP end a training between two steps, not inside one."""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from nasmvt.errors import UserError

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals by which terminals, schedulers and closed sessions ask a process to stop."""

_TWICE = 1.0
"""Seconds within which two signals count as one: `timeout` and schedulers signal both a process and its group."""


class Interrupted(Exception):
    """A signal asked the training to end; its checkpoint is written."""

    def __init__(self, step: int, checkpoint: Path) -> None:
        super().__init__(f"interrupted after step {step}")
        self.step = step
        self.checkpoint = checkpoint

    def __reduce__(self) -> tuple[type, tuple[int, Path]]:
        return type(self), (self.step, self.checkpoint)


class Failed(UserError):
    """Something outside the training broke it (a full disk, a killed worker); it can be resumed from a checkpoint."""

    def __init__(self, sentence: str, checkpoint: Path) -> None:
        super().__init__(sentence)
        self.checkpoint = checkpoint

    def __reduce__(self) -> tuple[type, tuple[str, Path]]:
        return type(self), (str(self), self.checkpoint)


class Abandoned(Failed):
    """Another process of the training ended; together they can go on from the checkpoint."""


class Signals:
    """Whether the training was asked to stop."""

    def __init__(self) -> None:
        self.seen = False
        self._since = 0.0
        self._act = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise KeyboardInterrupt inside the block as soon as a signal arrives: its work can be repeated."""
        self._act = True
        try:
            if self.seen:
                raise KeyboardInterrupt
            yield
        finally:
            self._act = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """Record a signal; a second one that is not an echo of the first takes effect at once."""
        echo = self.seen and time.monotonic() - self._since < _TWICE
        if not self.seen:
            self.seen, self._since = True, time.monotonic()
            if not self._act:
                return
        if not echo:
            raise KeyboardInterrupt


@contextmanager
def deferred() -> Iterator[Signals]:
    """Yield a record of Ctrl-C, SIGTERM and SIGHUP inside the block; ignored signals (nohup) stay ignored."""
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    previous = {number: signal.getsignal(number) for number in HANDLED}
    taken = {number: handler for number, handler in previous.items() if handler is not signal.SIG_IGN}
    for number in taken:
        signal.signal(number, signals.note)
    try:
        yield signals
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


@contextmanager
def interrupting() -> Iterator[None]:
    """Let SIGTERM and SIGHUP act like Ctrl-C inside the block: files stay complete, and the command reports it.

    Signals within a second of the first count as the same one (see `_TWICE`).
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    seen = -math.inf

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        echo, seen = time.monotonic() - seen < _TWICE, time.monotonic()
        if not echo:  # it would interrupt the cleaning up after the first
            raise KeyboardInterrupt

    usual = (signal.SIG_DFL, signal.default_int_handler)
    previous = {number: signal.getsignal(number) for number in HANDLED}
    taken = {number: handler for number, handler in previous.items() if handler in usual}
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)
