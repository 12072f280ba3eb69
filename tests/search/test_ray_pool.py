"""Ray: one local Ray for all of these tests but those on starting and stopping it."""

import builtins
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from nasmvt.errors import UserError
from nasmvt.search.ray_pool import RayPool
from nasmvt.search.workers import WorkerRange
from tests.search.toys import SMALL, Broken, Failing, Fragile, Hanging, Slow, SlowToBuild, Toy, every_arch, make_space

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # of Ray's own sockets and files

ARCH = make_space().smallest
TASKS = ("cls", "det", "seg")


@pytest.fixture(scope="module")
def cluster():
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    yield ray
    ray.shutdown()


def results(pool: RayPool) -> dict[str, dict[str, float]]:
    for task in TASKS:
        pool.submit(ARCH, task)
    found = [pool.result() for _ in TASKS]
    assert pool.pending == 0
    assert all(evaluation.arch == ARCH and evaluation.seconds >= 0 for evaluation in found)
    return {evaluation.task: evaluation.metrics for evaluation in found}


def expected() -> dict[str, dict[str, float]]:
    return {task: Toy().evaluate(ARCH, task) for task in TASKS}


def test_a_dead_worker_is_replaced_and_its_unit_tried_again(cluster, tmp_path) -> None:
    with RayPool(Fragile(tmp_path, deaths=2), 2) as pool:
        assert pool.capacity == 4
        assert results(pool) == expected()
    assert len(list(tmp_path.iterdir())) == 2
    assert cluster.is_initialized()  # it was not ours


def test_a_unit_that_keeps_killing_workers_is_named(cluster, tmp_path) -> None:
    with RayPool(Fragile(tmp_path, deaths=100), 1, retries=1) as pool:
        pool.submit(ARCH, "det")
        with pytest.raises(UserError, match=rf"arch {ARCH.id} .* on task 'det' died 2 times"):
            pool.result()


def test_a_unit_that_takes_too_long_is_started_a_second_time(cluster, tmp_path, caplog) -> None:
    """The first evaluation of the task, of all, hangs for ever."""
    archs = every_arch(make_space(SMALL))[:6]
    with RayPool(Hanging(tmp_path / "mark"), 2, least_straggling=1) as pool:
        for arch in archs:
            pool.submit(arch, "cls")
        found = [pool.result() for _ in archs]
        assert pool.pending == 0
        assert {evaluation.arch for evaluation in found} == set(archs)
        assert {evaluation.arch: evaluation.starts for evaluation in found}[archs[0]] == 2
        assert results(pool) == expected()
    assert f"arch {archs[0].id} ({archs[0]}) on task 'cls' takes ten times the median" in caplog.text
    assert "its second start answered first" in caplog.text


def test_a_range_begins_with_less_room_than_it_could_use(cluster) -> None:
    with RayPool(Toy(), WorkerRange(min=1, max=5)) as pool:
        assert pool.capacity == 10
        assert results(pool) == expected()
    with pytest.raises(UserError, match=r"3 workers of 1 CPU each need 3, but Ray has 2 free"):
        RayPool(Toy(), WorkerRange(min=3, max=5))


def test_a_worker_that_starts_slowly_is_not_taken_for_lost(cluster) -> None:
    with RayPool(SlowToBuild(4), 1, patience=0.5) as pool:
        assert results(pool) == expected()
    with RayPool(SlowToBuild(60), 1, patience=0.5, start_patience=2) as pool:
        pool.submit(ARCH, "cls")
        with pytest.raises(UserError, match="no Ray worker has been alive for 2 s"):
            pool.result()


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (Failing(UserError("give the task images")), r"^give the task images$"),
        (
            Failing(ZeroDivisionError("by zero\nsecond")),
            rf"arch {ARCH.id} .*'cls' failed with ZeroDivisionError: by zero$",
        ),
        (Broken(UserError("the evaluator can't be built: fix it")), "^the evaluator can't be built: fix it$"),
        (Broken(MemoryError("full")), "^building the evaluator failed with MemoryError: full$"),
    ],
)
def test_errors_of_an_evaluation_are_told_in_one_sentence(cluster, factory, message) -> None:
    with RayPool(factory, 1) as pool:
        pool.submit(ARCH, "cls")
        with pytest.raises(UserError, match=message):
            pool.result()


def test_more_workers_than_the_cluster_holds_are_refused(cluster) -> None:
    with pytest.raises(UserError, match=r"9 workers of 1 CPU each need 9, but Ray has 2 free: lower --workers"):
        RayPool(Toy(), 9)
    with pytest.raises(UserError, match="1 workers of 1 GPU"):
        RayPool(Toy(), 1, gpus_per_worker=1)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9"])
def test_a_cluster_that_does_not_answer_is_named(address) -> None:
    pytest.importorskip("ray").shutdown()
    with pytest.raises(UserError, match=rf"there is no accessible Ray cluster at '{address}'.*check --address"):
        RayPool(Toy(), 2, address=address)


def test_without_ray_the_way_out_is_named(monkeypatch) -> None:
    real = builtins.__import__

    def without(name, *rest):
        if name == "ray":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="install ray or pass --workers 0"):
        RayPool(Toy(), 2)


def test_a_machine_on_which_ray_does_not_start_is_told_the_way_out(monkeypatch, tmp_path) -> None:
    """A path of sockets may have 107 bytes."""
    pytest.importorskip("ray").shutdown()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 30)))
    with pytest.raises(UserError, match=r"Ray can't be started on this machine \(.*RAY_TMPDIR.*--workers 0"):
        RayPool(Toy(), 1)


@contextmanager
def cluster_of(head_cpus: int, cpus: int) -> Iterator[tuple[Any, Any]]:
    """Run two real Ray nodes on this machine; yield the cluster and the second node."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": head_cpus, "include_dashboard": False})
    try:
        second = cluster.add_node(num_cpus=cpus)
        ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
        cluster.wait_for_nodes()
        yield cluster, second
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_nodes_that_come_and_go_cost_neither_results_nor_the_search(caplog) -> None:
    """One node of two CPUs is killed in the middle, another one joins, and is used."""
    archs = every_arch(make_space(SMALL))
    with cluster_of(0, 2) as (cluster, node), RayPool(Slow(0.3), WorkerRange(min=1, max=3)) as pool:
        for arch in archs:
            pool.submit(arch, "cls")
        found = [pool.result() for _ in range(4)]
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        found += [pool.result() for _ in range(len(archs) - 4)]
        assert pool.pending == 0
    assert {evaluation.arch for evaluation in found} == set(archs)
    assert all(evaluation.metrics == Toy().evaluate(evaluation.arch, "cls") for evaluation in found)
    assert "the search continues with" in caplog.text


def test_a_search_without_a_living_worker_stops_by_itself() -> None:
    with cluster_of(0, 1) as (cluster, node), RayPool(Slow(0.2), 1, patience=15) as pool:
        pool.submit(ARCH, "cls")
        pool.result()
        cluster.remove_node(node, allow_graceful=False)

        def work_on() -> None:
            for _ in range(300):  # the worker outlives its node for a moment
                pool.submit(ARCH, "det")
                pool.result()

        with pytest.raises(UserError, match=r"no Ray worker has been alive for 15 s.*finished evaluations are kept"):
            work_on()


def test_workers_that_nodes_take_along_are_no_failed_starts() -> None:
    """Only those that die while no node does are counted, in a row."""
    nodes = [{"Alive": True}]
    pool = RayPool.__new__(RayPool)
    pool._ray = SimpleNamespace(nodes=lambda: nodes)
    pool._failed_starts = pool._nodes_lost = 0
    counted = []
    for dies in (False, False, True, True, False, False):
        nodes += [{"Alive": False}] * dies
        pool._count_failed_start()
        counted.append(pool._failed_starts)
    assert counted == [1, 2, 0, 0, 1, 2]
