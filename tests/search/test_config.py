import subprocess
import sys

import pytest

from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.search import SearchConfig
from nasmvt.search.workers import WorkerRange, parse_workers
from tests.search.toys import small_config


def test_parents_beyond_the_population_are_refused() -> None:
    with pytest.raises(UserError, match=r"'parents' \(10\) can't exceed 'population' \(5\).*lower 'parents'"):
        parse(SearchConfig, {"population": 5}, "experiment.yaml")
    assert SearchConfig(population=5, algorithm="random").parents == 10


def test_every_setting_is_documented() -> None:
    assert [name for name, field in SearchConfig.model_fields.items() if not field.description] == []


def test_number_of_evaluations() -> None:
    assert SearchConfig().evaluations == 1000
    assert small_config(mutants=20).evaluations == 8 + 3 * 24
    assert small_config(algorithm="random").evaluations == small_config().evaluations
    assert small_config(algorithm="random", candidates=5).evaluations == 5


def test_how_work_is_spread_is_no_part_of_the_identity() -> None:
    assert SearchConfig(workers=0, cpus_per_worker=3).identity() == SearchConfig(workers=8).identity()
    assert SearchConfig(images=5).identity() != SearchConfig().identity()


def test_searchers_need_no_torch_and_the_room_no_ray() -> None:
    """What the imports load in a fresh interpreter."""
    code = (
        "import sys, nasmvt.search.evolution, nasmvt.search.random_search; print('torch' in sys.modules);"
        "from nasmvt.search import *; print('ray' in sys.modules, 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False", "True"]


def test_a_range_of_workers_says_how_few_and_how_many() -> None:
    workers = parse(SearchConfig, {"workers": {"min": 2, "max": 8}}, "experiment.yaml").workers
    assert workers == WorkerRange(min=2, max=8)
    assert parse(SearchConfig, {"workers": parse_workers("2..8")}, "--workers").workers == workers
    assert (parse_workers("4"), parse_workers(None)) == (4, None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"min": 3, "max": 2}, r"'min' \(3\) can't exceed 'max' \(2\): lower 'min'"),
        ({"mni": 3, "max": 4}, r"unknown key 'workers.mni' in experiment.yaml; did you mean 'min'"),
        ({"min": 1}, r"the key 'workers.max' is missing"),
        (-1, r"bad value for 'workers'.*greater than or equal to 0"),
        ("many", r"bad value for 'workers'.*valid integer"),
    ],
)
def test_bad_workers_are_refused(given, message) -> None:
    with pytest.raises(UserError, match=message):
        parse(SearchConfig, {"workers": given}, "experiment.yaml")


@pytest.mark.parametrize("text", ["many", "2..", "..4", "-1", "1.5", "2..x"])
def test_a_text_that_is_no_number_of_workers_is_refused(text) -> None:
    with pytest.raises(UserError, match=r"--workers takes a number such as 4, or a range such as 2\.\.8, not"):
        parse_workers(text)
