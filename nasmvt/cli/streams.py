"""The standard streams as a terminal, a scheduler or a pipe leaves them: of any encoding, closed, on a full disk."""

import errno
import io
import os
import sys


class _Output(io.FileIO):
    """A file that drops what can't be written and remembers why: printing must not stop a training."""

    failure: OSError | None = None

    def write(self, data: object) -> int | None:  # type: ignore[override]
        """Write bytes, or drop them."""
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            self.failure = self.failure or error
            return memoryview(data).nbytes  # type: ignore[arg-type]


def open_streams() -> _Output:
    """Replace stdout and stderr by streams that never fail; return what is behind stdout.

    Characters that the encoding lacks are written as escapes (`\\\\xe9`).
    """
    opened = []
    for number, name in ((1, "stdout"), (2, "stderr")):
        old = getattr(sys, name)
        if old is None:  # closed by whoever started the process: no other file may take its number
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
        output = _Output(number, "w", closefd=False)
        new = io.TextIOWrapper(
            io.BufferedWriter(output),
            encoding=getattr(old, "encoding", "utf-8"),
            errors="backslashreplace",
            line_buffering=getattr(old, "line_buffering", False),
            write_through=getattr(old, "write_through", False),
        )
        setattr(sys, name, new)
        opened.append(output)
    return opened[0]


def loss(output: _Output) -> str | None:
    """Return a sentence on output that was dropped; None if there was none, or if its reader just went away."""
    sys.stdout.flush()
    if output.failure is None or output.failure.errno == errno.EPIPE:
        return None
    return f"what was printed could not be written ({output.failure.strerror}): free some space, or print elsewhere"
