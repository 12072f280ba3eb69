"""Training on Ray: its engine places the processes, joins them, and starts them anew when one dies."""

import importlib
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nasmvt.cluster import connect, first_line, import_ray
from nasmvt.errors import UserError
from nasmvt.training.interrupt import Abandoned, Interrupted, deferred
from nasmvt.training.processes import Processes, ProcessLost, joined, started_together

Tell = Callable[..., None]
"""`tell(event, *values)` sends an event to the process that started the workers."""
Work = Callable[[Processes, torch.device, Tell], None]
"""What each worker does; it must go on by itself where an earlier attempt ended."""

_BEAT = 0.5
"""Seconds between two looks of the starting process, and between two reports of a worker's progress."""


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The workers wanted."""

    count: int
    least: int | None = None
    """How few may go on when others are lost; None: all are needed."""
    address: str | None = None
    """A Ray cluster; None: a local Ray of our own."""
    restarts: int = 10
    """How often they are started anew before the training is given up."""

    def __post_init__(self) -> None:
        if self.least is not None and not 1 <= self.least <= self.count:
            raise UserError(
                f"--min-workers is how few of the {self.count} workers may go on, but is {self.least}: give 1 to "
                f"{self.count}"
            )


def wanted(count: int, address: str | None, least: int | None) -> Workers | None:
    """Return the workers that a command asks for; None: it trains in this process, or in torchrun's.

    Raises:
        UserError: if options contradict each other.
    """
    if count and started_together():
        raise UserError("torchrun has started the processes already: leave --workers out, or torchrun")
    if not count:
        if address is not None or least is not None:
            raise UserError("--address and --min-workers are about Ray workers, but --workers is 0: pass --workers too")
        return None
    return Workers(count=count, least=least, address=address)


class _Mailbox:
    """What workers and the process that started them tell each other; an actor."""

    def __init__(self) -> None:
        self._events: list[tuple[str, tuple[Any, ...]]] = []
        self._closing = False
        self._failure: BaseException | None = None

    def post(self, event: str, values: tuple[Any, ...]) -> bool:
        """Take in an event; return whether the training is to end."""
        self._events.append((event, values))
        return self._closing

    def collect(self) -> list[tuple[str, tuple[Any, ...]]]:
        """Return the events since the last time."""
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Ask the training to end."""
        self._closing = True

    def fail(self, error: BaseException) -> None:
        """Take in what ended the training; the first counts."""
        self._failure = self._failure or error

    def failure(self) -> BaseException | None:
        """Return what ended the training."""
        return self._failure


class _Relay:
    """Sends what happens to the mailbox; it is closed, as a terminal may be, when the training is to end."""

    def __init__(self, ray: Any, mailbox: Any) -> None:
        self._ray = ray
        self._mailbox = mailbox
        self._answer: Any = None
        self._told = 0.0

    def __call__(self, event: str, *values: Any) -> None:
        if self._answer is not None and self._ray.wait([self._answer], timeout=0)[0]:
            if self._ray.get(self._answer):
                raise BrokenPipeError("the training is asked to end")
            self._answer = None
        if event != "on_step" or (self._answer is None and time.monotonic() - self._told > _BEAT):
            self._told = time.monotonic()
            self._answer = self._mailbox.post.remote(event, values)


def train_on_ray(work: Work, workers: Workers, device: str, storage: Path, hear: Mapping[str, Tell]) -> None:
    """Do work in several workers that train together, and wait for its end.

    When a worker dies, all are started anew. A signal asks the training to end with a checkpoint.

    Args:
        work: picklable.
        workers: how many, and where.
        device: `cpu` or `cuda`; a worker has one GPU then.
        storage: a folder that all nodes see, for Ray's own notes; it is made, and removed at the end.
        hear: what to do with each event that the work tells.

    Raises:
        UserError: if Ray can't be used or has too few CPUs or GPUs, what the work raised, or if workers die again and
            again.
        Interrupted: after a signal.
    """
    ray = import_ray(f"a training with {workers.count} workers")
    try:
        importlib.import_module("ray.train.torch")
    except ImportError as reason:
        raise UserError(
            f"a training with workers needs Ray Train ({first_line(reason)}): pip install 'nasmvt[train]'"
        ) from None
    owned = not ray.is_initialized()
    if owned:
        connect(workers.address, workers.count)
    try:
        resources = {"CPU": 1.0, **({"GPU": 1.0} if device == "cuda" else {})}
        _check_room(ray, workers, resources)
        mailbox = ray.remote(num_cpus=0)(_Mailbox).remote()
        broken = _fit(ray, work, workers, resources, mailbox, storage, hear)
        failure = ray.get(mailbox.failure.remote())
    finally:
        if owned:
            ray.shutdown()
        shutil.rmtree(storage, ignore_errors=True)
    if failure is not None:
        raise failure
    if broken is not None:
        raise UserError(
            f"the workers of the training died {workers.restarts + 1} times ({first_line(broken)}): check the nodes' "
            "memory; the last checkpoint is kept"
        )


def _fit(
    ray: Any,
    work: Work,
    workers: Workers,
    resources: dict[str, float],
    mailbox: Any,
    storage: Path,
    hear: Mapping[str, Tell],
) -> BaseException | None:
    """Let Ray Train do the work; return what it raised. Signals and events are served meanwhile."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    trainer = TorchTrainer(
        _attempt,
        train_loop_config={"work": work, "mailbox": mailbox},
        scaling_config=ScalingConfig(
            num_workers=workers.count if workers.least is None else (workers.least, workers.count),
            resources_per_worker=resources,
            use_gpu="GPU" in resources,
        ),
        torch_config=TorchConfig(backend="nccl" if "GPU" in resources else "gloo"),
        run_config=RunConfig(
            storage_path=str(storage.absolute()), failure_config=FailureConfig(max_failures=workers.restarts)
        ),
    )
    errors: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:  # noqa: BLE001 (Ray Train has many, and the mailbox tells more)
            errors.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    with deferred() as signals:
        thread.start()
        asked = False
        while thread.is_alive():
            thread.join(_BEAT)
            _serve(ray.get(mailbox.collect.remote()), hear)
            if signals.seen and not asked:
                asked = True
                mailbox.close.remote()
        _serve(ray.get(mailbox.collect.remote()), hear)
    return errors[0] if errors else None


def _serve(events: list[tuple[str, tuple[Any, ...]]], hear: Mapping[str, Tell]) -> None:
    for event, values in events:
        if event in hear:
            hear[event](*values)


def _attempt(given: dict[str, Any]) -> None:
    """Run in a worker: do the work; what a new attempt would not mend ends the training."""
    import ray

    mailbox = given["mailbox"]
    if ray.get(mailbox.failure.remote()) is not None:
        return
    from ray.train.torch import get_device

    device = get_device()
    try:
        with joined(device) as processes:
            given["work"](processes, device, _Relay(ray, mailbox))
    except (Abandoned, ProcessLost):
        raise
    except Exception as error:  # noqa: BLE001 (raised again by the process that started the workers)
        kept = error if isinstance(error, UserError | Interrupted) else RuntimeError(f"{type(error).__name__}: {error}")
        ray.get(mailbox.fail.remote(kept))


def _check_room(ray: Any, workers: Workers, resources: Mapping[str, float]) -> None:
    """Refuse more workers than the cluster could ever hold: Ray Train would wait for new nodes."""
    there = ray.cluster_resources()
    count = workers.count if workers.least is None else workers.least
    for resource, need in resources.items():
        if count * need > there.get(resource, 0):
            raise UserError(
                f"{count} workers need {count * need:g} {resource}, but the Ray cluster has "
                f"{there.get(resource, 0):g}: lower --workers, or add nodes"
            )
