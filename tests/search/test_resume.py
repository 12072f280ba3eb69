"""A search that was killed anywhere ends with what it would have found, and evaluates nothing twice."""

import json
from pathlib import Path

import pytest

from nasmvt.search import InProcessPool
from nasmvt.search.strategies import SEARCHERS
from tests.search.test_race import Racing
from tests.search.test_run import Search, Shuffled

SIZES = {"population": 4, "parents": 2, "generations": 2, "mutants": 2, "crossovers": 2}  # 8 evaluations
SETTINGS: dict[str, dict] = {
    **{name: {"algorithm": name} for name in SEARCHERS},
    "nsga2": {"algorithm": "nsga2", "minimize": ("parameters",)},
    "race": {"algorithm": "evolution", "race": True},
}


@pytest.fixture(autouse=True)
def _costs(tiny_costs) -> None:
    Search.costs = tiny_costs


def searched(supernet, folder: Path, changes: dict, journal: bytes | None = None, pool=InProcessPool):
    """Search with what a killed search has left; return the candidates, the journal's lines, the result, the calls."""
    if journal is not None:
        folder.mkdir()
        (folder / "journal.jsonl").write_bytes(journal)
    evaluate = Racing()
    found = Search(supernet, folder, **SIZES, **changes).run(pool(evaluate))
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    return found, lines, (folder / "best.yaml").read_text(), evaluate.calls


def said(lines: list[bytes]) -> list[str]:
    """Return what a journal says, in any order, without the seconds."""
    return sorted(json.dumps({**json.loads(line), "seconds": 0}) for line in lines)


def untried(lines: list[bytes]) -> int:
    return sum(b'"seconds"' in line for line in lines)


@pytest.mark.parametrize("name", SETTINGS)
def test_killed_after_any_line_of_the_journal_it_finds_the_same(supernet, tmp_path, name) -> None:
    candidates, lines, best, _ = searched(supernet, tmp_path / "whole", SETTINGS[name])
    assert len(lines) > (20 if SETTINGS[name].get("race") else 33)
    for count in range(len(lines)):
        left = b"".join(lines[:count])
        again = searched(supernet, tmp_path / str(count), SETTINGS[name], left)
        assert again[0] == candidates
        assert again[2] == best
        assert said(again[1]) == said(lines)
        assert len(again[3]) == untried(lines[count:])


def test_a_line_that_was_being_written_is_written_anew(supernet, tmp_path) -> None:
    """Killed in the middle of a line: after its first byte, in the middle, before the end of the line."""
    candidates, lines, best, _ = searched(supernet, tmp_path / "whole", {})
    for count, line in enumerate(lines):
        torn = line[: (1, len(line) // 2, len(line) - 1)[count % 3]]
        again = searched(supernet, tmp_path / str(count), {}, b"".join(lines[:count]) + torn)
        assert again[0] == candidates
        assert again[2] == best
        assert said(again[1]) == said(lines)
        assert len(again[3]) == untried(lines[count:])


def test_a_journal_in_the_order_of_workers_is_continued_by_others(supernet, tmp_path) -> None:
    """And the other way round, killed twice."""
    candidates, lines, best, _ = searched(supernet, tmp_path / "whole", {}, pool=Shuffled)
    for count in range(2, len(lines) - 4, 5):
        first = searched(supernet, tmp_path / f"first {count}", {}, b"".join(lines[:count]))[1][: count + 4]
        again = searched(supernet, tmp_path / f"second {count}", {}, b"".join(first), Shuffled)
        assert again[0] == candidates
        assert again[2] == best
        assert said(again[1]) == said(lines)
