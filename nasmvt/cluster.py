"""Ray, imported and connected to only where work is given to it."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nasmvt.errors import UserError

_ENVIRONMENT = {
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # the output of a lost node's raylet fills the terminal; we print one sentence
    "RAY_USAGE_STATS_ENABLED": "0",  # no usage statistics
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # default of later versions of Ray, so that 2.x does not warn
    # Without a dashboard there is nobody to answer Ray Train's questions after the state of its actors.
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
}


def import_ray(purpose: str) -> Any:
    """Return the module `ray`.

    Args:
        purpose: what needs it, to be told to the user.

    Raises:
        UserError: if it is not installed.
    """
    try:
        with _environment(_ENVIRONMENT):  # some of it is read when Ray is imported
            import ray
    except ImportError:
        raise UserError(f"{purpose} needs Ray, which is not installed: install ray or pass --workers 0") from None
    return ray


def connect(address: str | None, cpus: int) -> None:
    """Start a local Ray of our own, or connect to a cluster.

    Args:
        address: a cluster ("auto", "host:6379", "ray://host:10001"); None or "local": a local Ray.
        cpus: what a local Ray counts as its CPUs.

    Raises:
        UserError: if Ray can't be started or the cluster can't be reached.
    """
    ray = import_ray("this")
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    local = address in (None, "local")
    with _environment(_ENVIRONMENT), _keeping_signals():
        if local:
            try:  # "local": without an address Ray joins any instance on this machine
                ray.init("local", num_cpus=cpus, include_dashboard=False, **quiet)
            except Exception as error:  # noqa: BLE001  Ray raises plain Exception if its processes don't start
                raise UserError(
                    f"Ray can't be started on this machine ({first_line(error)}): give it a writable HOME, a "
                    "short writable path in RAY_TMPDIR and room in /dev/shm, or pass --workers 0"
                ) from None
            return
        try:
            _knock(str(address))
            ray.init(address=address, **quiet)
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise UserError(
                f"there is no accessible Ray cluster at {address!r} ({first_line(error)}): check --address, set "
                "RAY_AUTH_MODE=token if the cluster wants a token, or leave --address out for a local Ray"
            ) from None


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its type if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


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
