"""Evaluation on Ray: a local one, or a cluster of many nodes."""

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch

from nasmvt.cluster import connect, first_line, import_ray
from nasmvt.errors import UserError
from nasmvt.search.pool import Evaluate, Evaluation, Pool, timed
from nasmvt.search.stragglers import Durations
from nasmvt.search.workers import WorkerRange
from nasmvt.space import Arch

Factory = Callable[[], Evaluate]
"""Builds the evaluator inside a worker; picklable. Its arrays are read from shared memory."""

_log = logging.getLogger(__name__)

_BEAT = 1.0
"""Seconds between two checks of the remaining workers."""
_ROOM_PATIENCE = 5.0
"""Seconds until released resources become free."""
_STARTS = 3
"""Consecutive failed starts per worker after which the search gives up, where no node dies meanwhile."""


class _Worker:
    """Runs in its own process. The evaluator isn't built as it starts, so that its errors can be reported."""

    _evaluate: Evaluate

    def __init__(self, factory: Factory, threads: int) -> None:
        torch.set_num_threads(threads)
        self._factory = factory

    def prepare(self) -> None:
        """Build the evaluator."""
        self._evaluate = self._factory()

    def evaluate(self, arch: Arch, task: str, rung: int | None) -> Evaluation:
        return timed(self._evaluate, arch, task, rung)


@dataclass(eq=False)
class _Unit:
    arch: Arch
    task: str
    rung: int | None
    starts: int = 0
    deaths: int = 0

    def __str__(self) -> str:
        return f"arch {self.arch.id} ({self.arch}) on task '{self.task}'"

    @property
    def kind(self) -> str:
        """What takes equally long."""
        return self.task if self.rung is None else f"{self.task}, rung {self.rung}"


@dataclass(frozen=True)
class _Run:
    """A unit on a worker."""

    worker: Any
    unit: _Unit
    since: float


class RayPool(Pool):
    """Workers that evaluate one unit each at a time, and are replaced when they or their node die.

    A worker gets a unit once it is ready, so one that waits for a place on the cluster blocks nothing, and nodes that
    join later are used. A unit that takes ten times the median of its task is started a second time, on another
    worker; the first answer counts, and the other worker is replaced. An initialised Ray is used as it is; otherwise
    one is started, or the cluster at `address` is connected to, and released by `close`.

    Args:
        factory: builds the evaluator; put into Ray's object store once, from which each node fetches it once.
        workers: number of worker processes: all are needed at first, and one later; or how few and how many.
        address: a cluster ("auto", "host:6379", "ray://host:10001"); None: a local Ray of our own.
        cpus_per_worker: cores, and torch threads, of a worker.
        gpus_per_worker: GPUs of a worker, fractions allowed.
        retries: how often a unit is tried again after its worker died.
        patience: seconds with too few workers after which the search stops, if there are too few nodes as well.
        start_patience: the same while the nodes have places for them: workers that start on a slow node, or wait for
            others to end, are not lost.
        least_straggling: seconds below which no unit is started a second time.

    Raises:
        UserError: if Ray is not installed or can't be started, the cluster can't be reached, or too few of its CPUs or
            GPUs are free.
    """

    def __init__(
        self,
        factory: Factory,
        workers: int | WorkerRange,
        *,
        address: str | None = None,
        cpus_per_worker: int = 1,
        gpus_per_worker: float = 0.0,
        retries: int = 3,
        patience: float = 120.0,
        start_patience: float = 600.0,
        least_straggling: float = 5.0,
    ) -> None:
        if isinstance(workers, WorkerRange):
            needed, self._least, self._wanted = workers.min, workers.min, workers.max
        else:
            needed, self._least, self._wanted = workers, 1, workers
        ray = import_ray(f"a search with {self._wanted} workers")
        self._ray: Any = ray
        self._owned = not ray.is_initialized()
        self._each = {"CPU": float(cpus_per_worker), "GPU": gpus_per_worker}
        self._retries = retries
        self._patience = patience
        self._start_patience = start_patience
        self._few_since: float | None = None
        self._durations = Durations(least_straggling)
        self._units: deque[_Unit] = deque()
        self._starting: dict[Any, Any] = {}  # reference of `prepare` -> worker
        self._idle: deque[Any] = deque()
        self._running: dict[Any, _Run] = {}  # by the reference of the result
        self._failed_starts = 0  # in a row
        self._nodes_lost = 0
        if self._owned:
            connect(address, self._wanted * cpus_per_worker)
        with ExitStack() as undo:
            undo.callback(self.close)
            self._check_room(needed)
            remote = ray.remote(_Worker).options(num_cpus=cpus_per_worker, num_gpus=gpus_per_worker)
            shared = ray.put(factory)
            self._new_worker = lambda: remote.remote(shared, cpus_per_worker)
            for _ in range(self._wanted):
                self._start()
            undo.pop_all()

    def _check_room(self, workers: int) -> None:
        """Refuse more workers than there is room for; processes that just ended may need a moment to release theirs."""
        deadline = time.monotonic() + _ROOM_PATIENCE
        while lacking := self._lacking(workers):
            if time.monotonic() > deadline:
                resource, need, free = lacking
                raise UserError(
                    f"{workers} workers of {need:g} {resource} each need {workers * need:g}, but Ray has {free:g} "
                    f"free: lower --workers or {resource.lower()}s_per_worker"
                )
            time.sleep(0.1)

    def _lacking(self, workers: int) -> tuple[str, float, float] | None:
        """Return a resource of which too little is free, with the need of a worker and the amount available."""
        free = self._ray.available_resources()
        for resource, need in self._each.items():
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
        return len(self._units) + len({run.unit for run in self._running.values()})

    def submit(self, arch: Arch, task: str, rung: int | None = None) -> None:
        """Submit a unit; it starts at once if a worker is idle."""
        self._units.append(_Unit(arch, task, rung))
        self._dispatch()

    def result(self) -> Evaluation:
        """Wait for the first unit to end and return it.

        Raises:
            UserError: if an evaluation raised an exception, a unit's workers kept dying, or there were too few workers
                for too long.
        """
        while True:
            ended, _ = self._ray.wait([*self._running, *self._starting], num_returns=1, timeout=_BEAT)
            self._check_workers()
            evaluation = None
            for reference in ended:
                if reference in self._starting:
                    self._began(reference)
                else:
                    evaluation = self._ended(reference)
            self._dispatch()
            if evaluation is not None:
                return evaluation

    @property
    def _alive(self) -> int:
        return len(self._idle) + len(self._running)

    def _check_workers(self) -> None:
        """Give up after too long a time with too few workers."""
        if self._alive >= self._least:
            self._few_since = None
            return
        now = time.monotonic()
        self._few_since = self._few_since or now
        few = now - self._few_since
        if few <= self._patience:
            return
        patience = self._start_patience if self._places() >= self._least else self._patience
        if few > patience:
            alive = "no Ray worker has" if self._least == 1 else f"fewer than {self._least} Ray workers have"
            raise UserError(
                f"{alive} been alive for {patience:g} s: bring nodes back or free their CPUs, and "
                "run the same command again; finished evaluations are kept"
            )

    def _places(self) -> int:
        """Return how many workers the living nodes would hold if nobody else used them."""
        needs = {resource: need for resource, need in self._each.items() if need}
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return sum(int(min(node.get(name, 0) / need for name, need in needs.items()) + 1e-6) for node in nodes)

    def _began(self, reference: Any) -> None:
        """Put a worker that is ready into service, or replace one that died."""
        worker = self._starting.pop(reference)
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise UserError(_failure("building the evaluator", error.cause)) from None
        except self._deaths as error:
            self._count_failed_start()
            if self._failed_starts > _STARTS * self._wanted:
                raise UserError(
                    f"Ray's workers die as they start ({first_line(error)}): check the nodes' memory and that nasmvt "
                    "is installed on each, or pass --workers 0"
                ) from None
            self._bury(worker)
            return
        self._failed_starts = 0
        self._idle.append(worker)

    def _count_failed_start(self) -> None:
        """Count a worker that died as it started, unless nodes die, which takes their workers along."""
        lost = sum(not node["Alive"] for node in self._ray.nodes())
        self._failed_starts = 0 if lost > self._nodes_lost else self._failed_starts + 1
        self._nodes_lost = lost

    def _ended(self, reference: Any) -> Evaluation | None:
        """Return an evaluation, or None if its worker died and its unit is queued again."""
        run = self._running.pop(reference)
        unit = run.unit
        others = [other for other, rival in self._running.items() if rival.unit is unit]
        try:
            evaluation: Evaluation = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise UserError(_failure(f"evaluating {unit}", error.cause)) from None
        except self._deaths as error:
            unit.deaths += 1
            if unit.deaths > self._retries:
                raise UserError(
                    f"the worker evaluating {unit} died {unit.deaths} times ({first_line(error)}): check the "
                    "machine's memory, lower --workers, or pass --workers 0"
                ) from None
            if not others:
                self._units.appendleft(unit)
            self._bury(run.worker)
            return None
        self._idle.append(run.worker)
        self._durations.add(unit.kind, evaluation.seconds)
        for other in others:
            rival = self._running.pop(other)
            self._replace(rival.worker)
            which = "second" if run.since > rival.since else "first"
            _log.warning("%s: its %s start answered first; the other worker is replaced", unit, which)
        return replace(evaluation, starts=unit.starts)

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
        self._replace(worker)
        _log.warning(
            "a worker died: the search continues with %d of %d until another one starts", self._alive, self._wanted
        )

    def _replace(self, worker: Any) -> None:
        self._ray.kill(worker)
        self._start()

    def _start(self) -> None:
        worker = self._new_worker()
        self._starting[worker.prepare.remote()] = worker

    def _dispatch(self) -> None:
        """Give the idle workers something to do: first what takes too long elsewhere, then what waits."""
        if self._idle:
            for unit in self._stragglers()[: len(self._idle)]:
                median = self._durations.median(unit.kind)
                _log.warning("%s takes ten times the median of %.2f s: it is started a second time", unit, median)
                self._run(unit)
        while self._idle and self._units:
            self._run(self._units.popleft())

    def _stragglers(self) -> list[_Unit]:
        """Return the units that run too long, on one worker."""
        now = time.monotonic()
        units = [run.unit for run in self._running.values()]
        return [
            run.unit
            for run in self._running.values()
            if units.count(run.unit) == 1 and self._durations.is_straggler(run.unit.kind, now - run.since)
        ]

    def _run(self, unit: _Unit) -> None:
        worker = self._idle.popleft()
        unit.starts += 1
        self._running[worker.evaluate.remote(unit.arch, unit.task, unit.rung)] = _Run(worker, unit, time.monotonic())

    def close(self) -> None:
        """Stop the workers; disconnect from Ray, or stop it if this pool started it."""
        if not self._ray.is_initialized():
            return
        for worker in (*self._starting.values(), *self._idle, *(run.worker for run in self._running.values())):
            self._ray.kill(worker)
        self._starting.clear()
        self._idle.clear()
        self._running.clear()
        self._units.clear()
        if self._owned:
            self._ray.shutdown()


def _failure(work: str, cause: BaseException) -> str:
    return (
        str(cause)
        if isinstance(cause, UserError)
        else f"{work} failed with {type(cause).__name__}: {first_line(cause)}"
    )
