"""Evaluation on Ray: a local one, or a cluster of many nodes. The only file that imports Ray."""

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from nasmvt.errors import UserError
from nasmvt.search.pool import Evaluate, Evaluation, Pool, timed
from nasmvt.space import Arch

Factory = Callable[[], Evaluate]
"""Builds the evaluator inside a worker; picklable. Its arrays are read where they lie in shared memory."""

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what later versions of Ray do, so that 2.x does not warn
}


class _Worker:
    """Runs in a process of its own. The first unit builds the evaluator, so that its errors can be told."""

    def __init__(self, factory: Factory, threads: int) -> None:
        torch.set_num_threads(threads)
        self._factory = factory
        self._evaluator: Evaluate | None = None

    def evaluate(self, arch: Arch, task: str) -> Evaluation:
        if self._evaluator is None:
            self._evaluator = self._factory()
        return timed(self._evaluator, arch, task)


@dataclass(frozen=True)
class _Unit:
    arch: Arch
    task: str
    deaths: int = 0


class RayPool(Pool):
    """Workers that evaluate one unit each at a time, and are replaced when they die.

    An initialised Ray is used as it is; otherwise one is started, or the cluster at `address` connected to,
    and let go by `close`.

    Args:
        factory: builds the evaluator; put into Ray's object store once.
        workers: number of worker processes.
        address: a cluster ("auto", "host:6379", "ray://host:10001"); None: a local Ray of our own.
        cpus_per_worker: cores, and torch threads, of a worker.
        gpus_per_worker: GPUs of a worker, fractions allowed.
        retries: how often a unit is tried again after its worker died.

    Raises:
        UserError: if Ray is not installed, the cluster can't be reached, or it has too few CPUs or GPUs.
    """

    def __init__(
        self,
        factory: Factory,
        workers: int,
        *,
        address: str | None = None,
        cpus_per_worker: int = 1,
        gpus_per_worker: float = 0.0,
        retries: int = 3,
    ) -> None:
        try:
            import ray
        except ImportError:
            raise UserError(
                f"a search with {workers} workers needs Ray, which is not installed: install ray or pass --workers 0"
            ) from None
        self._ray: Any = ray
        self._owned = not ray.is_initialized()
        self._retries = retries
        self._units: deque[_Unit] = deque()
        self._running: dict[Any, tuple[Any, _Unit]] = {}  # reference of a result -> (worker, unit)
        self._workers: list[Any] = []
        if self._owned:
            self._connect(address, workers * cpus_per_worker)
        with ExitStack() as undo:
            undo.callback(self.close)
            self._check_room(workers, {"CPU": cpus_per_worker, "GPU": gpus_per_worker})
            remote = ray.remote(_Worker).options(num_cpus=cpus_per_worker, num_gpus=gpus_per_worker)
            shared = ray.put(factory)
            self._spawn = lambda: remote.remote(shared, cpus_per_worker)
            self._workers = [self._spawn() for _ in range(workers)]
            undo.pop_all()
        self._idle = deque(self._workers)

    def _connect(self, address: str | None, cpus: int) -> None:
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        with _environment(_ENVIRONMENT):
            if address is None:  # "local": without an address Ray joins whatever runs on this machine
                self._ray.init("local", num_cpus=cpus, include_dashboard=False, **quiet)
                return
            try:
                _knock(address)
                self._ray.init(address=address, **quiet)
            except (OSError, ValueError, RuntimeError, ImportError) as error:
                raise UserError(
                    f"no Ray cluster lets us in at {address!r} ({_first_line(error)}): check --address, set "
                    "RAY_AUTH_MODE=token if the cluster wants a token, or leave --address out for a local Ray"
                ) from None

    def _check_room(self, workers: int, each: Mapping[str, float]) -> None:
        """Refuse workers that would wait for resources for ever."""
        there = self._ray.cluster_resources()
        for resource, need in each.items():
            if need and workers * need > there.get(resource, 0) + 1e-6:
                raise UserError(
                    f"{workers} workers of {need:g} {resource} each need {workers * need:g}, but Ray has "
                    f"{there.get(resource, 0):g}: lower --workers or {resource.lower()}s_per_worker"
                )

    @property
    def capacity(self) -> int:
        """Every worker has one unit, and the next lie ready."""
        return 2 * len(self._workers)

    @property
    def pending(self) -> int:
        """Units that wait or run."""
        return len(self._units) + len(self._running)

    def submit(self, arch: Arch, task: str) -> None:
        """Take in a unit; it starts at once if a worker is idle."""
        self._units.append(_Unit(arch, task))
        self._dispatch()

    def result(self) -> Evaluation:
        """Wait for the first unit to end and return it.

        Raises:
            UserError: if an evaluation raised an exception, or a unit's workers kept dying.
        """
        errors = self._ray.exceptions
        while True:
            (reference, *_), _ = self._ray.wait(list(self._running), num_returns=1)
            worker, unit = self._running.pop(reference)
            try:
                evaluation: Evaluation = self._ray.get(reference)
            except errors.RayTaskError as error:
                raise UserError(_failure(unit, error.cause)) from None
            except (errors.RayActorError, errors.WorkerCrashedError, errors.OutOfMemoryError) as error:
                self._replace(worker, unit, error)
                continue
            self._idle.append(worker)
            self._dispatch()
            return evaluation

    def _dispatch(self) -> None:
        while self._idle and self._units:
            worker, unit = self._idle.popleft(), self._units.popleft()
            self._running[worker.evaluate.remote(unit.arch, unit.task)] = (worker, unit)

    def _replace(self, worker: Any, unit: _Unit, error: Exception) -> None:
        """Start a fresh worker in the place of a dead one and try its unit again."""
        deaths = unit.deaths + 1
        if deaths > self._retries:
            raise UserError(
                f"the worker evaluating {_name(unit)} died {deaths} times ({_first_line(error)}): check the "
                "machine's memory, lower --workers, or pass --workers 0"
            )
        self._ray.kill(worker)
        self._workers.remove(worker)
        fresh = self._spawn()
        self._workers.append(fresh)
        self._idle.append(fresh)
        self._units.appendleft(_Unit(unit.arch, unit.task, deaths))
        self._dispatch()

    def close(self) -> None:
        """Stop the workers; leave Ray, or end it if this pool started it."""
        if not self._ray.is_initialized():
            return
        for worker in self._workers:
            self._ray.kill(worker)
        self._workers.clear()
        self._running.clear()
        self._units.clear()
        if self._owned:
            self._ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError at once where nobody listens; Ray would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the processes started in the block, unless the user set them."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _failure(unit: _Unit, cause: BaseException) -> str:
    if isinstance(cause, UserError):
        return str(cause)
    return f"evaluating {_name(unit)} failed with {type(cause).__name__}: {_first_line(cause)}"


def _name(unit: _Unit) -> str:
    return f"arch {unit.arch.id} ({unit.arch}) on task '{unit.task}'"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
