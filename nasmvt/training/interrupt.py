"""Ctrl-C and SIGTERM end a training between two steps, not inside one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class Interrupted(Exception):
    """A signal asked the training to end; its checkpoint is written."""

    def __init__(self, step: int, checkpoint: Path) -> None:
        super().__init__(f"interrupted after step {step}")
        self.step = step
        self.checkpoint = checkpoint


@contextmanager
def deferred() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C or SIGTERM sets inside the block; a second signal acts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        event.set()
        restore()

    for number in previous:
        signal.signal(number, note)
    try:
        yield event
    finally:
        restore()
