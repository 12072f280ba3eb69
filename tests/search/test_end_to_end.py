"""A search with real networks, in this process and on Ray's workers."""

import os
import signal

import pytest
import torch

from nasmvt.config import parse
from nasmvt.cost import Budget, Costs
from nasmvt.data import EvalSet, open_dataset
from nasmvt.search import EvaluationSetting, Objective, Objectives, SearchConfig, make_pool, make_searcher, search
from nasmvt.space import load_space
from nasmvt.supernet import Supernet
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.task import Task
from nasmvt.training.interrupt import interrupting
from tests.conftest import TINY_TASKS, randomize
from tests.search.toys import search_files

TASKS = ("cls", "det")


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of Ray's own sockets and files
def test_workers_find_what_one_process_finds(tmp_path) -> None:
    ray = pytest.importorskip("ray")
    space = load_space("vit_mvt_nano")
    tasks, batches, training = {}, {}, {}
    for name in TASKS:
        config = parse(TaskConfig, TINY_TASKS[name], name)
        data = open_dataset(config.data, config.kind, "train", 0)
        tasks[name] = Task(name=name, config=config, info=data.info)
        batches[name] = EvalSet(data, range(12), config.data, 6)
        training[name] = EvalSet(data, range(12, 20), config.data, 4, on_canvas=True)
    torch.manual_seed(0)
    supernet = Supernet(space, tasks)
    randomize(supernet)
    costs = Costs(space, tasks, supernet.sharing())
    budget = Budget(int(costs.totals.of(space.smallest)[0] + costs.totals.of(space.largest)[0]) // 2)

    def run(workers: int):
        config = SearchConfig(population=2, parents=2, generations=2, mutants=1, crossovers=1, workers=workers)
        searcher = make_searcher(config, budget.feasible(costs), seed=0)
        journal, files = search_files(tmp_path / str(workers))
        setting = EvaluationSetting(sharing=costs.sharing, images=batches, recalibration=training)
        with make_pool(config, supernet, setting) as pool:
            return search(supernet, searcher, pool, Objectives(Objective.of(tasks)), costs, budget, journal, files)

    threads = torch.get_num_threads()
    alone = run(0)
    assert torch.get_num_threads() == threads
    assert not ray.is_initialized()
    weights = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    assert run(2) == alone
    assert not ray.is_initialized()  # what was started is stopped
    assert len(alone) == 4
    assert len({tuple(candidate.metrics["cls"].values()) for candidate in alone}) > 1
    assert all(torch.equal(weights[name], tensor) for name, tensor in supernet.state_dict().items())
    same = (tmp_path / "0" / "candidates.csv").read_text() == (tmp_path / "2" / "candidates.csv").read_text()
    assert same


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_signal_acts_as_without_ray_and_shuts_it_down() -> None:
    ray = pytest.importorskip("ray")
    from nasmvt.search.ray_pool import RayPool
    from tests.search.toys import Toy

    def interrupted() -> None:
        with interrupting(), RayPool(Toy(), 1):  # Ray has a handler of its own, which exits
            assert ray.is_initialized()
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not ray.is_initialized()
