"""Commands of nasmvt as children of a process that has loaded the libraries, for all of them, once."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path


def load() -> None:
    """Load the libraries that most commands need."""
    import faster_coco_eval  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import torchmetrics  # noqa: F401

    import nasmvt.cli.main
    import nasmvt.export
    import nasmvt.pipeline.compare
    import nasmvt.pipeline.search
    import nasmvt.pipeline.supernet  # noqa: F401


def fork(words: Sequence[str], folder: Path, out: int, err: int, settle: Callable[[], object]) -> int:
    """Start a command in a folder; return its process.

    Args:
        words: the command without `nasmvt`.
        folder: where it runs.
        out: file descriptor of its stdout.
        err: file descriptor of its stderr.
        settle: called in the child first, to give it a group, a session or a terminal of its own.
    """
    child = os.fork()
    if not child:
        _become(words, folder, out, err, settle)
    return child


def _become(words: Sequence[str], folder: Path, out: int, err: int, settle: Callable[[], object]) -> None:
    """Run a command in the child, and end it."""
    code = 70
    try:
        settle()
        os.chdir(folder)
        os.dup2(out, 1)
        os.dup2(err, 2)
        # Tests replace the streams and turn warnings into errors.
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        warnings.resetwarnings()
        sys.argv = ["nasmvt", *words]
        from nasmvt.cli.main import main

        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:  # noqa: BLE001  (that is what is looked for)
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
