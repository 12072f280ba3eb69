"""Some cells of `benchmarks/kill_matrix.py`; the whole of it takes a quarter of an hour."""

import children
import pytest
from kill_matrix import TERMINAL, Cell, Matrix, cells


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    children.load()
    return Matrix(tmp_path_factory.mktemp("matrix"))


@pytest.mark.parametrize(
    "cell",
    [
        Cell("training", 2, "SIGKILL", "process"),
        Cell("evaluation in training", 2, TERMINAL, "group"),
        Cell("search", 2, "SIGINT", "group"),
        Cell("export, measuring", 2, "SIGTERM", "process"),
    ],
    ids=str,
)
def test_an_interrupted_command_goes_on_to_the_same_results(cell, matrix):
    assert cell in set(cells())
    assert matrix(cell).faults == ()
