"""The one exception for what a user can cause."""

import difflib
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
