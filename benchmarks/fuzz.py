"""Damage valid inputs at random, run a command of the main job on them, and see that nobody gets a traceback.

    python benchmarks/fuzz.py --seeds 0:1000
    python benchmarks/fuzz.py --seeds 17 --keep /tmp/case      # one again, its folder kept

A seed stands for one format, one command and up to three damages: bytes of files, values and keys of JSON and YAML,
files removed, emptied, swapped or turned into folders; in the data, the experiment, the run directory or the exported
folder. Required of every command: exit code 0 or 2, with one sentence for 2; no traceback; an end in time; a bounded
memory; nothing changed in the folder but the command's own outputs.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import children
import fuzz_damage
import fuzz_data

TIMEOUT = 90.0
"""Seconds after which a command counts as hanging; it takes about two."""
MEMORY = 2048.0
"""MB that a command may use in all; the libraries take about 700 of them."""

RUNS = ("imagefolder", "coco", "ade20k")
"""Formats that a finished run is made of."""


@dataclass(frozen=True)
class Command:
    """One command of the main job, on the folder of a case."""

    words: tuple[str, ...]
    damaged: tuple[str, ...]
    """Which files may be damaged: patterns below the folder."""
    outputs: tuple[str, ...]
    """Where it may write: beginnings of paths."""


_DATA = ("data/**/*", "mine.yaml")
ON_DATA = {
    "data": Command(("data", "mine.yaml"), _DATA, ()),
    "train-supernet": Command(("train-supernet", "mine.yaml", "--out", "out"), _DATA, ("out",)),
}
ON_RUNS = {
    "profile": Command(("profile", "run"), ("run/*", "run/search/*"), ()),
    "search": Command(("search", "run"), ("run/*", "run/supernet/*", "run/search/*", "data/**/*"), ("run/search",)),
    "retrain": Command(
        ("retrain", "run", "--resume"),
        ("run/*", "run/supernet/*", "run/search/*", "run/retrain/**/*", "data/**/*"),
        ("run/retrain",),
    ),
    "export": Command(
        ("export", "run", "--out", "out"), ("run/*", "run/supernet/*", "run/search/*", "run/retrain/**/*"), ("out",)
    ),
    "evaluate": Command(("evaluate", "run/export"), ("run/export/*", "data/**/*"), ("run/export/evaluation.json",)),
    "predict": Command(("predict", "run/export", "data", "--out", "out"), ("run/export/*", "data/**/*"), ("out",)),
}


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int | None
    """The exit code; None: it did not end in time."""
    output: str
    megabytes: float
    """Peak memory, the libraries included."""
    seconds: float


def run(words: tuple[str, ...], folder: Path, timeout: float = TIMEOUT) -> Outcome:
    """Run a command in a child of this process, so that torch is loaded once."""
    log = folder.with_suffix(".log")
    begun = time.monotonic()
    with log.open("w") as file:
        child = children.fork(words, folder, file.fileno(), file.fileno(), lambda: os.setpgid(0, 0))
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - begun > timeout:
            os.killpg(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            status = -1
            break
        time.sleep(0.01)
    output = log.read_text(errors="replace")
    log.unlink()
    code = None if status == -1 else os.waitstatus_to_exitcode(status)
    return Outcome(code, output, usage.ru_maxrss / 1024, time.monotonic() - begun)


class Bases:
    """Undamaged folders by format, made when they are first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, format: str, finished: bool) -> Path:
        """Return a folder with `data` and `mine.yaml`, and `run` if it is to hold a finished run."""
        folder = self._folder / f"{format}{'-run' if finished else ''}"
        if not folder.exists():
            fuzz_data.write(format, folder)
            steps = ("train-supernet mine.yaml --out run", "search run", "retrain run", "export run")
            for words in steps if finished else ():
                outcome = run(tuple(words.split()), folder)
                if outcome.code != 0:
                    raise SystemExit(f"the undamaged {format} must work, but {words} did not:\n{outcome.output}")
        return folder


@dataclass(frozen=True)
class Case:
    """One seed."""

    seed: int
    format: str
    command: str
    damages: tuple[str, ...]
    outcome: Outcome
    fault: str | None
    """What is wrong, if anything is."""


def fuzz(seed: int, bases: Bases, folder: Path, *, runs: tuple[str, ...] = RUNS) -> Case:
    """Run the case of a seed in a folder, which is made.

    Args:
        seed: says everything.
        bases: gives the undamaged folders.
        folder: where the damaged copy goes.
        runs: formats that finished runs may be of.
    """
    rng = random.Random(seed)
    name = rng.choice([*ON_DATA, *ON_DATA, *(ON_RUNS if runs else ())])
    format = rng.choice(list(fuzz_data.FORMATS if name in ON_DATA else runs))
    command = (ON_DATA | ON_RUNS)[name]
    base = bases.of(format, finished=name in ON_RUNS)
    shutil.copytree(base, folder, symlinks=True)
    relocate(base, folder)
    damages = tuple(fuzz_damage.damage(folder, command.damaged, rng) for _ in range(rng.choice([1, 1, 1, 2, 3])))
    before = _contents(folder)
    outcome = run(command.words, folder)
    return Case(seed, format, name, damages, outcome, _fault(outcome, before, _contents(folder), command.outputs))


def relocate(base: Path, folder: Path) -> None:
    """Let the files of a copied folder that name the folder it was copied from name the copy."""
    for path in (folder / "run/config.yaml", folder / "run/export/config.json"):
        if path.is_file():
            path.write_text(path.read_text().replace(str(base), str(folder)))


def _contents(folder: Path) -> dict[str, bytes | None]:
    found = {}
    for path in folder.rglob("*"):
        found[str(path.relative_to(folder))] = path.read_bytes() if path.is_file() else None
    return found


def _fault(
    outcome: Outcome, before: dict[str, bytes | None], after: dict[str, bytes | None], outputs: tuple[str, ...]
) -> str | None:
    lines = [line for line in outcome.output.splitlines() if line.strip()]
    if outcome.code is None:
        return f"no end after {outcome.seconds:.0f} s"
    if "Traceback (most recent call last)" in outcome.output or outcome.code not in (0, 2):
        return f"exit {outcome.code}: {lines[-1] if lines else 'no output'}"
    if outcome.code == 2 and not any(line.startswith("error: ") for line in lines):
        return "exit 2 without a sentence"
    if outcome.megabytes > MEMORY:
        return f"{outcome.megabytes:.0f} MB"
    changed = [name for name in before.keys() | after.keys() if before.get(name, b"?") != after.get(name, b"?")]
    others = sorted(name for name in changed if not name.startswith(outputs or ("\0",)))
    return f"changed {', '.join(others[:3])}" if others else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0:100", help="FIRST:END, or one seed")
    parser.add_argument("--seconds", type=float, help="stop after this time")
    parser.add_argument("--keep", type=Path, help="where the folder of the last case is kept")
    parser.add_argument("--bases", type=Path, help="where undamaged folders are kept for the next time")
    given = parser.parse_args()
    first, _, end = given.seeds.partition(":")
    begun, codes, faults, worst = time.monotonic(), Counter(), 0, 0.0
    children.load()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        bases = Bases(given.bases or Path(temporary) / "bases")
        for seed in range(int(first), int(end or int(first) + 1)):
            if given.seconds is not None and time.monotonic() - begun > given.seconds:
                break
            folder = Path(temporary) / "case"
            case = fuzz(seed, bases, folder)
            codes[case.outcome.code] += 1
            worst = max(worst, case.outcome.megabytes)
            if case.fault is not None:
                faults += 1
                print(f"{seed} {case.format} {case.command} [{'; '.join(case.damages)}]: {case.fault}", flush=True)
            if given.keep is not None:
                shutil.copytree(folder, given.keep, dirs_exist_ok=True, symlinks=True)
                print(case.outcome.output)
            shutil.rmtree(folder)
    print(
        f"{sum(codes.values())} inputs in {time.monotonic() - begun:.0f} s: {faults} faults, exit codes "
        f"{dict(codes)}, most memory {worst:.0f} MB"
    )
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
