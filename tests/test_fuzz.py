"""Fifty of the damaged inputs of `benchmarks/fuzz.py`; the thousand take a quarter of an hour."""

import fuzz
import pytest


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return fuzz.Bases(tmp_path_factory.mktemp("bases"))


@pytest.mark.parametrize("seed", range(50))
def test_damaged_inputs_are_refused_or_work(seed, bases, tmp_path):
    case = fuzz.fuzz(seed, bases, tmp_path / "case", runs=("imagefolder",))
    assert case.fault is None, f"{case.format} {case.command} {case.damages}\n{case.outcome.output[-2000:]}"


@pytest.mark.parametrize(
    ("code", "output", "after", "fault"),
    [
        (0, "fine\n", {"out/a": b"1"}, None),
        (2, "error: a rule, and what to do\n", {}, None),
        (None, "", {}, "no end after"),
        (1, "ValueError: x\n", {}, "exit 1: ValueError: x"),
        (2, "Traceback (most recent call last)\nerror: x\n", {}, "exit 2"),
        (2, "Aborted.\n", {}, "exit 2 without a sentence"),
        (0, "fine\n", {"data/a": b"2"}, "changed data/a"),
        (-9, "", {}, "exit -9"),
    ],
)
def test_what_counts_as_a_fault(code, output, after, fault):
    outcome = fuzz.Outcome(code, output, 700.0, 1.0)
    found = fuzz._fault(outcome, {}, after, ("out",))
    assert found == fault or (fault is not None and found is not None and found.startswith(fault))
