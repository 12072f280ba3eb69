import pytest
import torch

from nasmvt.errors import UserError
from nasmvt.search import EvaluationSetting, InProcessPool, SearchConfig, make_pool
from nasmvt.search.build import _gpus


def test_without_workers_everything_stays_in_this_process(supernet) -> None:
    setting = EvaluationSetting(sharing=supernet.sharing(), images={}, recalibration={})
    assert type(make_pool(SearchConfig(workers=0), supernet, setting)) is InProcessPool
    with pytest.raises(UserError, match=r"there are none for auto: give their number \(--workers\), or leave the"):
        make_pool(SearchConfig(workers=0), supernet, setting, "auto")


@pytest.mark.parametrize(("gpus", "workers", "each"), [(1, 1, 1), (1, 2, 0.5), (4, 4, 1), (4, 6, 0.5), (4, 2, 1)])
def test_workers_divide_the_gpus_of_a_machine(monkeypatch, gpus, workers, each) -> None:
    """Ray puts no worker on parts of two GPUs, so that each GPU must hold a whole number of workers."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    config = SearchConfig(workers=workers)
    assert _gpus(config, torch.device("cuda"), None) == each
    assert _gpus(config, torch.device("cuda"), "host:6379") == 1
    assert _gpus(config, torch.device("cpu"), None) == 0
    assert _gpus(SearchConfig(gpus_per_worker=0.25), torch.device("cuda"), None) == 0.25


def test_threads_of_this_process_are_given_back(supernet) -> None:
    before = torch.get_num_threads()
    seen = []

    def evaluate(arch, task, rung):
        seen.append(torch.get_num_threads())
        raise ZeroDivisionError

    pool = InProcessPool(evaluate, threads=before + 1)
    pool.submit(supernet.space.smallest, "cls")
    with pytest.raises(ZeroDivisionError):
        pool.result()
    assert seen == [before + 1]
    assert torch.get_num_threads() == before
