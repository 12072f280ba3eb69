"""The exception for errors that a user can cause, and sentences for errors of the operating system."""

import difflib
import errno
import os
import re
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can fix.

    Its text is one sentence: the rule, what was given, and what to do. The command line prints it
    and exits with code 2; a program may catch it.
    """


def nearest(word: object, known: Iterable[object]) -> str:
    """Return "; did you mean 'x'?" for the known word nearest to `word`, or "" if none is near."""
    names = [str(name) for name in known]
    matches = difflib.get_close_matches(str(word), names, n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def listed(known: Iterable[object]) -> str:
    """Return the known words as "a, b, c", for the end of a sentence."""
    return ", ".join(str(name) for name in known)


def check_task(option: str, task: str, tasks: Iterable[str]) -> None:
    """Refuse a task that an option names and that does not exist.

    Raises:
        UserError: if it is none of `tasks`.
    """
    names = list(tasks)
    if task not in names:
        raise UserError(f"{option} names the task {task!r}, unknown{nearest(task, names)} (tasks: {listed(names)})")


_CODE = re.compile(r"\bos error (\d+)|\bcode: (\d+)|\[Errno (\d+)\]")
_WRITERS = re.compile(r"PytorchStream(Reader|Writer)|inline_container|iostream error|basic_ios", re.IGNORECASE)
_OPENING = re.compile(
    r"Parent directory (?P<folder>.+) does not exist|File (?P<file>.+) cannot be opened", re.IGNORECASE
)
_ADVICE = "check the path, its rights and the disk"


def os_refusal(error: BaseException) -> str | None:
    """Return a sentence on what the operating system refused, or None if the error is of another kind.

    Libraries say it in ways of their own: with or without the name of a file, as text inside an error of theirs
    (safetensors), as an error of torch's writer, or wrapped in that of a remote task (Ray).
    """
    remote = getattr(error, "cause", None)
    if isinstance(remote, BaseException):
        return os_refusal(remote)
    if isinstance(error, OSError):
        reason = error.strerror or str(error) or type(error).__name__
        file = error.filename2 or error.filename  # what a temporary file was to become
        if file is not None:
            name = file if isinstance(file, (str, bytes, os.PathLike)) else str(file)
            return f"{os.fsdecode(name)} can't be used ({reason}): {_ADVICE}"
        return f"a file or connection can't be used ({reason}): {_advice(error.errno)}"
    text = str(error)
    if type(error).__module__.partition(".")[0] == "safetensors" and (found := _CODE.search(text)):
        code = int(next(group for group in found.groups() if group))
        return f"a file of tensors can't be used ({os.strerror(code)}): {_advice(code)}"
    if isinstance(error, RuntimeError):
        if text == "can't start new thread":
            return "no further thread or process may be started here: raise the limit (ulimit -u, a container's pids)"
        if found := _OPENING.search(text):
            return f"{found['folder'] or found['file']} can't be used (it does not exist or may not be read): {_ADVICE}"
        if _WRITERS.search(text):
            return (
                "a checkpoint can't be written or read to its end (the disk is full, or no file may be that large): "
                "free some space, or raise the limit"
            )
    return None


def _advice(code: int | None) -> str:
    known = {
        errno.ENOSPC: "free some space on the disk",
        errno.EDQUOT: "free some of your quota",
        errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    }
    return known.get(code or 0, _ADVICE)
