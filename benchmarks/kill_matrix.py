"""Interrupt every command of the main job in every way, go on, and compare with what was never interrupted.

    python benchmarks/kill_matrix.py --json kills.json
    python benchmarks/kill_matrix.py --cells 'evaluate.*SIGKILL'      # some, by a regular expression

A cell is an activity (training, evaluation, search ...), a number of loader workers, a signal (or a terminal that is
closed) and whether it goes to the process or to its group. Required: the exit code and the one sentence of that signal;
no process lives on; no half-written file is left when the command was run again; then weights and results are those of
an uninterrupted run, bit for bit. The moment is chosen by what the command has written or read so far.
"""

import argparse
import json
import os
import pty
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSCTTY

import children
from fuzz import run
from kill_cases import ACTIVITIES, Activity, Bases, copy, differences, results

PATIENCE = 60.0
"""Seconds in which a command must reach its moment, and must have ended after the signal."""
SOON = {"search with Ray": 75.0}
"""Seconds in which all processes of a killed command are gone, where not `_SOON`: two agents of Ray, which compute
nothing, try to reach its server for 60 s."""
_SOON = 1.0
_WHOLE = 600.0
"""Seconds in which a command must end that is not interrupted."""
_ATTEMPTS = 5
"""Starts of a command that ends before the signal comes."""

_OF_LIBRARIES = {"ray", ".ses"}
"""What libraries leave among temporary files."""

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL")
TERMINAL = "closed terminal"


@dataclass(frozen=True)
class Cell:
    """One way to interrupt one command."""

    activity: str
    workers: int
    way: str
    """A signal's name, or `TERMINAL`."""
    target: str
    """Who gets the signal: "process" or "group"."""

    def __str__(self) -> str:
        return f"{self.activity}, {self.workers} workers, {self.way} to the {self.target}"


@dataclass(frozen=True)
class Result:
    """What became of a cell."""

    code: int | None
    """The exit code; negative: the signal that ended the process."""
    sentence: str
    """What was printed on stderr."""
    alone_after: float
    """Seconds after the end of the command in which the last of its processes ended."""
    faults: tuple[str, ...]


def cells() -> Iterator[Cell]:
    """Yield the whole matrix."""
    for name, activity in ACTIVITIES.items():
        for workers in activity.workers:
            for way in SIGNALS:
                yield from (Cell(name, workers, way, target) for target in ("process", "group"))
            yield Cell(name, workers, TERMINAL, "group")


class Process:
    """A command in a session of its own, so that its processes can be found."""

    def __init__(self, words: str, folder: Path, *, terminal: bool) -> None:
        self.errors = folder.with_suffix(".err")
        self._terminal, inner = pty.openpty() if terminal else (None, None)

        def settle() -> None:
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the matrix runs in the background
            os.environ["KILL_MATRIX"] = str(folder)
            os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
            if inner is not None:
                os.close(self._terminal)
                ioctl(inner, TIOCSCTTY, 0)
                os.dup2(inner, 0)

        (folder / "tmp").mkdir()
        with self.errors.open("w") as err, Path(os.devnull).open("w") as out:
            streams = (out.fileno(), err.fileno()) if inner is None else (inner, inner)
            self.pid = children.fork(words.split(), folder, *streams, settle)
        self.folder = folder
        self.code: int | None = None
        if inner is not None:
            os.close(inner)

    def ended(self) -> bool:
        """Return whether the command has ended, and take down its exit code."""
        if self.code is None:
            if self._terminal is not None:
                _drain(self._terminal)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is not None

    def interrupt(self, way: str, target: str) -> None:
        """Send the signal, or close the terminal."""
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None
        else:
            {"process": os.kill, "group": os.killpg}[target](self.pid, signal.Signals[way])

    def left(self) -> list[int]:
        """Return its processes that live: those of its session, and those that inherited its environment."""
        mark = f"KILL_MATRIX={self.folder}\0".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
                if words[0] not in "ZX" and (int(words[3]) == self.pid or mark in (entry / "environ").read_bytes()):
                    found.append(int(entry.name))
            except OSError:  # it ended, or is somebody else's
                continue
        return found


def _drain(terminal: int) -> None:
    """Read what was printed, or the terminal fills up and the command waits."""
    os.set_blocking(terminal, False)
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        pass


def wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition holds; return whether it came to hold in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


class Matrix:
    """Runs cells in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bases = Bases(folder)
        self._uninterrupted: dict[tuple[str, int], dict[str, object]] = {}
        self._started = 0

    def __call__(self, cell: Cell) -> Result:
        """Interrupt, look, go on, compare."""
        activity = ACTIVITIES[cell.activity]
        expected = self._expected(cell.activity, cell.workers)
        for _ in range(_ATTEMPTS):
            self._started += 1
            folder = self._folder / str(self._started)  # a short name: sockets below it have paths of 107 bytes at most
            copy(self._bases.of(activity.base, cell.workers), folder)
            process = Process(activity.command, folder, terminal=cell.way == TERMINAL)
            reached = wait(lambda: activity.moment(folder) or process.ended(), PATIENCE)  # noqa: B023
            if reached and process.code is None:
                process.interrupt(cell.way, cell.target)
            ended = wait(process.ended, PATIENCE)
            if not ended:
                os.killpg(process.pid, signal.SIGKILL)
                wait(process.ended, PATIENCE)
                return Result(None, "", 0.0, ("it did not end",))
            if process.code:
                break
        return self._judged(cell, activity, process, expected)

    def _judged(self, cell: Cell, activity: Activity, process: Process, expected: dict[str, object]) -> Result:
        ended = time.monotonic()
        faults = []
        sentence = process.errors.read_text().rstrip("\n")
        wanted = -signal.SIGKILL if cell.way == "SIGKILL" else 2
        if process.code != wanted:
            faults.append(f"exit code {process.code}, not {wanted}")
        if cell.way in SIGNALS[:3] and not re.fullmatch(activity.sentence, sentence):
            faults.append(f"it said {sentence!r}")
        if not wait(lambda: not process.left(), SOON.get(cell.activity, _SOON)):
            faults.append(f"{len(process.left())} processes live on")
            wait(lambda: not process.left(), PATIENCE)
        alone_after = time.monotonic() - ended
        folder = process.folder
        if cell.way != "SIGKILL" and (found := half_written(folder)):
            faults.append(f"half-written: {found}")
        again = activity.command if self._nothing_begun(folder, activity) else activity.again
        outcome = run(tuple(again.split()), folder, _WHOLE)
        if outcome.code != 0:
            faults.append(f"'{again}' gives exit code {outcome.code}: {outcome.output.strip()[-300:]}")
        elif found := sorted(differences(results(folder, activity.results), expected)):
            faults.append(f"other than uninterrupted: {found[:3]}")
        if found := half_written(folder):
            faults.append(f"half-written after it was run again: {found}")
        return Result(process.code, sentence, round(alone_after, 2), tuple(faults))

    @staticmethod
    def _nothing_begun(folder: Path, activity: Activity) -> bool:
        return not (folder / activity.results).parent.exists()

    def _expected(self, name: str, workers: int) -> dict[str, object]:
        if (name, workers) not in self._uninterrupted:
            activity, folder = ACTIVITIES[name], self._folder / f"whole-{name.replace(' ', '-')}-{workers}"
            copy(self._bases.of(activity.base, workers), folder)
            outcome = run(tuple(activity.command.split()), folder, _WHOLE)
            if outcome.code != 0:
                raise SystemExit(f"'{activity.command}' must work uninterrupted:\n{outcome.output}")
            self._uninterrupted[name, workers] = results(folder, activity.results)
        return self._uninterrupted[name, workers]


def half_written(folder: Path) -> list[str]:
    """Return files and folders with names that are only used while they are written."""
    hidden = re.compile(r"\.(?!gitignore)|checkpoint\.new\.pt")
    temporary = folder / "tmp"
    found = [path for path in folder.rglob("*") if hidden.match(path.name) and temporary not in path.parents]
    found += [path for path in temporary.iterdir() if path.name not in _OF_LIBRARIES]
    return sorted(str(path.relative_to(folder)) for path in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", default="", help="regular expression that the name of a cell must match")
    parser.add_argument("--json", type=Path, help="file for the results")
    given = parser.parse_args()
    children.load()
    begun, found = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="kill-") as temporary:
        matrix = Matrix(Path(temporary))
        for cell in filter(lambda cell: re.search(given.cells, str(cell)), cells()):
            result = matrix(cell)
            found.append({**asdict(cell), **asdict(result)})
            verdict = "; ".join(result.faults) or "identical"
            print(f"{cell}: exit code {result.code}, alone after {result.alone_after:.2f} s, {verdict}", flush=True)
    failed = sum(bool(item["faults"]) for item in found)
    print(f"{len(found)} cells, {failed} with faults, {time.monotonic() - begun:.0f} s")
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
