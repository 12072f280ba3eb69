import subprocess
import sys

import pytest

from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.search import SearchConfig
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
