"""Evaluation on Ray: a local one, or a cluster of many nodes."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from nasmvt.cluster import connect, first_line, import_ray
from nasmvt.errors import UserError
from nasmvt.search.pool import Evaluate, Evaluation, Pool, timed
from nasmvt.space import Arch

Factory = Callable[[], Evaluate]
"""Builds the evaluator inside a worker; picklable. Its arrays are read from shared memory."""

_log = logging.getLogger(__name__)

_BEAT = 1.0
"""Seconds between two checks of the remaining workers."""
_ROOM_PATIENCE = 5.0
"""Seconds until released resources become free."""
_STARTS = 3
"""Consecutive failed starts per worker after which the search gives up."""


class _Worker:
    """Runs in its own process. The first unit builds the evaluator, so that its errors can be reported."""

    def __init__(self, factory: Factory, threads: int) -> None:
        torch.set_num_threads(threads)
        self._factory = factory
        self._evaluator: Evaluate | None = None

    def alive(self) -> None:
        """Return as soon as the process runs."""

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
    """Workers that evaluate one unit each at a time, and are replaced when they or their node die.

    A worker gets a unit once it is alive, so one that waits for a place on the cluster blocks nothing. An initialised
    Ray is used as it is; otherwise one is started, or the cluster at `address` is connected to, and released by
    `close`.

    Args:
        factory: builds the evaluator; stored once in Ray's object store.
        workers: number of worker processes.
        address: a cluster ("auto", "host:6379", "ray://host:10001"); None: a local Ray of our own.
        cpus_per_worker: cores, and torch threads, of a worker.
        gpus_per_worker: GPUs of a worker, fractions allowed.
        retries: how often a unit is tried again after its worker died.
        patience: seconds without any living worker after which the search stops.

    Raises:
        UserError: if Ray is not installed or can't be started, the cluster can't be reached, or too few of its CPUs or
            GPUs are free.
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
        patience: float = 120.0,
    ) -> None:
        ray = import_ray(f"a search with {workers} workers")
        self._ray: Any = ray
        self._owned = not ray.is_initialized()
        self._wanted = workers
        self._retries = retries
        self._patience = patience
        self._units: deque[_Unit] = deque()
        self._starting: dict[Any, Any] = {}  # reference of `alive` -> worker
        self._idle: deque[Any] = deque()
        self._running: dict[Any, tuple[Any, _Unit]] = {}  # reference of a result -> (worker, unit)
        self._failed_starts = 0  # in a row
        if self._owned:
            connect(address, workers * cpus_per_worker)
        with ExitStack() as undo:
            undo.callback(self.close)
            self._check_room(workers, {"CPU": cpus_per_worker, "GPU": gpus_per_worker})
            remote = ray.remote(_Worker).options(num_cpus=cpus_per_worker, num_gpus=gpus_per_worker)
            shared = ray.put(factory)
            self._new_worker = lambda: remote.remote(shared, cpus_per_worker)
            for _ in range(workers):
                self._start()
            undo.pop_all()

    def _check_room(self, workers: int, each: Mapping[str, float]) -> None:
        """Refuse more workers than there is room for; processes that just ended may need a moment to release theirs."""
        deadline = time.monotonic() + _ROOM_PATIENCE
        while lacking := self._lacking(workers, each):
            if time.monotonic() > deadline:
                resource, need, free = lacking
                raise UserError(
                    f"{workers} workers of {need:g} {resource} each need {workers * need:g}, but Ray has {free:g} "
                    f"free: lower --workers or {resource.lower()}s_per_worker"
                )
            time.sleep(0.1)

    def _lacking(self, workers: int, each: Mapping[str, float]) -> tuple[str, float, float] | None:
        """Return a resource of which too little is free, with the need of a worker and the amount available."""
        free = self._ray.available_resources()
        for resource, need in each.items():
            if need and workers * need > free.get(resource, 0) + 1e-6:
                return resource, need, free.get(resource, 0)
        return None

    @property
    def capacity(self) -> int:
        """Every worker has one unit, and the next are ready."""
        return 2 * self._wanted

    @property
    def pending(self) -> int:
        """Units waiting or running."""
        return len(self._units) + len(self._running)

    def submit(self, arch: Arch, task: str) -> None:
        """Submit a unit; it starts at once if a worker is idle."""
        self._units.append(_Unit(arch, task))
        self._dispatch()

    def result(self) -> Evaluation:
        """Wait for the first unit to end and return it.

        Raises:
            UserError: if an evaluation raised an exception, a unit's workers kept dying, or there was no worker for
                `patience` seconds.
        """
        lonely_since = time.monotonic()
        while True:
            ended, _ = self._ray.wait([*self._running, *self._starting], num_returns=1, timeout=_BEAT)
            if self._running or self._idle:
                lonely_since = time.monotonic()
            elif time.monotonic() - lonely_since > self._patience:
                raise UserError(
                    f"no Ray worker has been alive for {self._patience:g} s: bring nodes back or free their CPUs, and "
                    "run the same command again; finished evaluations are kept"
                )
            for reference in ended:
                evaluation = None
                if reference in self._starting:
                    self._began(reference)
                else:
                    evaluation = self._ended(reference)
                self._dispatch()
                if evaluation is not None:
                    return evaluation

    def _began(self, reference: Any) -> None:
        """Put a worker that is alive into service, or replace one that is not."""
        worker = self._starting.pop(reference)
        try:
            self._ray.get(reference)
        except self._deaths as error:
            self._failed_starts += 1
            if self._failed_starts > _STARTS * self._wanted:
                raise UserError(
                    f"Ray's workers die as they start ({first_line(error)}): check the nodes' memory and that nasmvt "
                    "is installed on each, or pass --workers 0"
                ) from None
            self._bury(worker)
            return
        self._failed_starts = 0
        self._idle.append(worker)

    def _ended(self, reference: Any) -> Evaluation | None:
        """Return an evaluation, or None if its worker died and its unit is queued again."""
        worker, unit = self._running.pop(reference)
        try:
            evaluation: Evaluation = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise UserError(_failure(unit, error.cause)) from None
        except self._deaths as error:
            deaths = unit.deaths + 1
            if deaths > self._retries:
                raise UserError(
                    f"the worker evaluating {_name(unit)} died {deaths} times ({first_line(error)}): check the "
                    "machine's memory, lower --workers, or pass --workers 0"
                ) from None
            self._units.appendleft(_Unit(unit.arch, unit.task, deaths))
            self._bury(worker)
            return None
        self._idle.append(worker)
        return evaluation

    @property
    def _deaths(self) -> tuple[type[Exception], ...]:
        """What Ray raises if a worker, its node, or an object it needs from another node is lost."""
        errors = self._ray.exceptions
        return (
            errors.RayActorError,
            errors.WorkerCrashedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
            errors.ObjectFetchTimedOutError,
            errors.NodeDiedError,
        )

    def _bury(self, worker: Any) -> None:
        """Start a worker in place of a dead one; it serves as soon as the cluster has room for it."""
        self._ray.kill(worker)
        self._start()
        alive = len(self._idle) + len(self._running)
        _log.warning("a worker died: the search continues with %d of %d until another one starts", alive, self._wanted)

    def _start(self) -> None:
        worker = self._new_worker()
        self._starting[worker.alive.remote()] = worker

    def _dispatch(self) -> None:
        while self._idle and self._units:
            worker, unit = self._idle.popleft(), self._units.popleft()
            self._running[worker.evaluate.remote(unit.arch, unit.task)] = (worker, unit)

    def close(self) -> None:
        """Stop the workers; disconnect from Ray, or stop it if this pool started it."""
        if not self._ray.is_initialized():
            return
        for worker in (*self._starting.values(), *self._idle, *(worker for worker, _ in self._running.values())):
            self._ray.kill(worker)
        self._starting.clear()
        self._idle.clear()
        self._running.clear()
        self._units.clear()
        if self._owned:
            self._ray.shutdown()


def _failure(unit: _Unit, cause: BaseException) -> str:
    if isinstance(cause, UserError):
        return str(cause)
    return f"evaluating {_name(unit)} failed with {type(cause).__name__}: {first_line(cause)}"


def _name(unit: _Unit) -> str:
    return f"arch {unit.arch.id} ({unit.arch}) on task '{unit.task}'"
