"""Damages to files, each a function of a random generator."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 7, 1.5, "", "x", "0", "1", "NaN", "\ud800", "a" * 1000, "../..", "\0"),
    *([], {}, [[]], [1, 2, 3], ["a"], {"a": 1}, float("nan"), float("inf"), [[1, 2, 3, 4, 5, 6]], -0.5),
)
"""Values to put in place of others. None of them asks for much work: a billion steps are no fault."""
HUGE: tuple[Any, ...] = (2**31, 2**63, 2**64, 1e308, -1e308, {"size": [9, 9], "counts": "~~~"}, {"counts": [[1]]})
"""Values for annotation files alone."""

LONG = {"training", "retrain", "search", "steps", "population", "generations", "max_candidates"}
"""Keys that are left alone: without them the defaults hold, and a command works for an hour, which is no hang."""


def damage(folder: Path, patterns: tuple[str, ...], rng: random.Random) -> str:
    """Damage one of the files that the patterns name; return what was done."""
    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    if not files:
        return "nothing left to damage"
    # Few files hold much meaning and many hold little: draw by kind of file first.
    suffix = rng.choice(sorted({path.suffix for path in files}))
    path = rng.choice([path for path in files if path.suffix == suffix])
    structured = {".json": _change_json, ".yaml": _change_yaml, ".jsonl": _change_lines, ".csv": _change_lines}
    ways: list[Callable[[Path, random.Random], str]] = [_bytes, _bytes, _cut, _remove, _rename, _folder, _swap]
    if suffix in structured:
        ways += [structured[suffix]] * 8
    elif suffix in (".txt", ".xml"):
        ways += [_change_lines] * 4
    done = rng.choice(ways)(path, rng)
    return f"{path.relative_to(folder)}: {done}"


def _bytes(path: Path, rng: random.Random) -> str:
    content = bytearray(path.read_bytes() or b"?")
    near = rng.choice([60, 400, 10**9])
    places = [rng.randrange(min(len(content), near)) for _ in range(rng.randint(1, 6))]
    for place in places:
        content[place] = rng.randrange(256)
    path.write_bytes(bytes(content))
    return f"bytes {places}"


def _cut(path: Path, rng: random.Random) -> str:
    content = path.read_bytes()
    length = rng.choice([0, 1, rng.randrange(len(content) + 1)])
    path.write_bytes(content[:length])
    return f"cut to {length} bytes"


def _remove(path: Path, rng: random.Random) -> str:
    path.unlink()
    return "removed"


def _rename(path: Path, rng: random.Random) -> str:
    name = rng.choice(
        [path.name.upper(), f"{path.name}.bak", f".{path.name}", f"{path.stem} copy{path.suffix}", "\udcff"]
    )
    path.rename(path.with_name(name))
    return f"renamed {name!a}"


def _folder(path: Path, rng: random.Random) -> str:
    path.unlink()
    if rng.random() < 0.5:
        path.mkdir()
        return "is a folder"
    path.symlink_to(path.name)
    return "is a link to itself"


def _swap(path: Path, rng: random.Random) -> str:
    other = rng.choice(sorted(item for item in path.parent.parent.rglob("*") if item.is_file()))
    third = path.with_name("swapped")
    shutil.move(path, third)
    if other.exists():
        shutil.move(other, path)
        shutil.move(third, other)
    else:
        shutil.move(third, path)
    return f"swapped with {other.name}"


def _change_json(path: Path, rng: random.Random) -> str:
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        return _bytes(path, rng)
    done = _change(value, rng, (*ODD, *HUGE) if "annotations" in path.parts else ODD)
    path.write_text(json.dumps(value))
    return done


def _change_yaml(path: Path, rng: random.Random) -> str:
    try:
        value = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError):
        return _bytes(path, rng)
    done = _change(value, rng, ODD)
    path.write_text(yaml.dump(value, sort_keys=False), errors="replace")
    return done


def _change_lines(path: Path, rng: random.Random) -> str:
    lines = path.read_bytes().splitlines(keepends=True) or [b""]
    place = rng.randrange(len(lines))
    way = rng.choice(["dropped", "twice", "odd words"])
    if way == "dropped":
        del lines[place]
    elif way == "twice":
        lines.insert(place, lines[place])
    else:
        words = lines[place].split() or [b""]
        words[rng.randrange(len(words))] = rng.choice(
            [b"", b"-1", b"nan", b"x", b"1e400", b"\xff", b"9999999999999999999"]
        )
        lines[place] = b" ".join(words) + b"\n"
    path.write_bytes(b"".join(lines))
    return f"line {place} {way}"


def _change(value: Any, rng: random.Random, odd: tuple[Any, ...]) -> str:
    """Change a value somewhere inside lists and mappings: replace, drop, rename its key, or say it twice."""
    places = [(owner, key) for owner, key in _places(value) if key not in LONG]
    if not places:
        return "nothing to change"
    owner, key = rng.choice(places)
    way = rng.choice(["odd", "odd", "odd", "dropped", "renamed", "twice"])
    if way == "dropped":
        del owner[key]
    elif way == "renamed" and isinstance(owner, dict):
        owner[f"{key}_"] = owner.pop(key)
    elif way == "twice" and isinstance(owner, list):
        owner.append(owner[key])
    else:
        owner[key] = rng.choice(odd)
        return f"{key!r} = {str(owner[key])[:20]!a}"
    return f"{key!r} {way}"


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)
