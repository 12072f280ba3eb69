"""Evaluation on Ray: a local one, or a cluster of many nodes. The only file that imports Ray."""

import logging
import os
import signal
import socket
import threading
import time
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
"""Builds the evaluator inside a worker; picklable. Its arrays are read from shared memory."""

_log = logging.getLogger(__name__)

_ENVIRONMENT = {
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # the output of a lost node's raylet fills the terminal; we print one sentence
    "RAY_USAGE_STATS_ENABLED": "0",  # no usage statistics
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # default of later versions of Ray, so that 2.x does not warn
}

_LOCAL_ENVIRONMENT = {
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",  # its agents outlive a killed driver for that long, by default 60 s
}

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
        try:
            with _environment(_ENVIRONMENT):  # some of it is read when Ray is imported
                import ray
        except ImportError:
            raise UserError(
                f"a search with {workers} workers needs Ray, which is not installed: install ray or pass --workers 0"
            ) from None
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
            self._connect(address, workers * cpus_per_worker)
        with ExitStack() as undo:
            undo.callback(self.close)
            self._check_room(workers, {"CPU": cpus_per_worker, "GPU": gpus_per_worker})
            remote = ray.remote(_Worker).options(num_cpus=cpus_per_worker, num_gpus=gpus_per_worker)
            shared = ray.put(factory)
            self._new_worker = lambda: remote.remote(shared, cpus_per_worker)
            for _ in range(workers):
                self._start()
            undo.pop_all()

    def _connect(self, address: str | None, cpus: int) -> None:
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        own = _LOCAL_ENVIRONMENT if address is None else {}
        with _environment(_ENVIRONMENT | own), _keeping_signals():
            if address is None:
                try:  # "local": without an address Ray joins any instance on this machine
                    self._ray.init("local", num_cpus=cpus, include_dashboard=False, **quiet)
                except Exception as error:  # noqa: BLE001  Ray raises plain Exception if its processes don't start
                    raise UserError(
                        f"Ray can't be started on this machine ({_first_line(error)}): give it a writable HOME, a "
                        "short writable path in RAY_TMPDIR and room in /dev/shm, or pass --workers 0"
                    ) from None
                return
            try:
                _knock(address)
                self._ray.init(address=address, **quiet)
            except (OSError, ValueError, RuntimeError, ImportError) as error:
                raise UserError(
                    f"there is no accessible Ray cluster at {address!r} ({_first_line(error)}): check --address, set "
                    "RAY_AUTH_MODE=token if the cluster wants a token, or leave --address out for a local Ray"
                ) from None

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
                    f"Ray's workers die as they start ({_first_line(error)}): check the nodes' memory and that nasmvt "
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
                    f"the worker evaluating {_name(unit)} died {deaths} times ({_first_line(error)}): check the "
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


def _knock(address: str) -> None:
    """Raise OSError at once if nothing listens; Ray would retry for minutes."""
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


@contextmanager
def _keeping_signals() -> Iterator[None]:
    """Restore the handlers of the signals that end a command: Ray's own end it at once, without results."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _failure(unit: _Unit, cause: BaseException) -> str:
    if isinstance(cause, UserError):
        return str(cause)
    return f"evaluating {_name(unit)} failed with {type(cause).__name__}: {_first_line(cause)}"


def _name(unit: _Unit) -> str:
    return f"arch {unit.arch.id} ({unit.arch}) on task '{unit.task}'"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
