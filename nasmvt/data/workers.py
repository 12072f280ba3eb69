"""Computing batches in other processes, with the same results.

Every worker has a pipe of its own: its values come back as bytes, so neither /dev/shm nor a lock is needed, and the
end of a worker, or of the process that feeds it, is seen at once as the end of the pipe. A worker whose pipe has ended
ends itself, whatever it is computing.
"""

import itertools
import multiprocessing
import os
import pickle
import select
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

import torch

from nasmvt.errors import UserError

_AHEAD = 2
"""Keys assigned to a worker: one being computed, one waiting to be fetched."""
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals to the process group that the main process handles on behalf of its workers."""
_ends: "weakref.WeakSet[Connection]" = weakref.WeakSet()
"""This process's ends of the pipes to its workers. A forked worker closes its copies: as long as it holds them, the
pipes of the other workers, those of other pools too, do not end with the main process."""


def prepare(function: Callable[[Any], Any], keys: Iterable[Any], workers: int) -> Iterator[Any]:
    """Yield the value of `function` for each key, in order.

    Args:
        function: picklable; what it returns must be a function of the key alone.
        keys: any number of keys, possibly endless.
        workers: processes that compute ahead; 0 computes each value on demand.

    Raises:
        UserError: what `function` raises, or if a worker can't be started or is killed.
    """
    if not workers:
        yield from map(function, keys)
        return
    remaining = iter(keys)
    pool = _Pool(function, workers)
    try:
        asked = 0
        for key in itertools.islice(remaining, workers * _AHEAD):
            pool.ask(asked % workers, key)
            asked += 1
        fetched = 0
        while fetched < asked:
            value = pool.fetch(fetched % workers)
            for key in itertools.islice(remaining, 1):
                pool.ask(asked % workers, key)
                asked += 1
            fetched += 1
            yield value
    finally:
        pool.close()


class _Pool:
    """Worker processes, each at the other end of a pipe."""

    def __init__(self, function: Callable[[Any], Any], count: int) -> None:
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        # Also at interpreter exit, which would otherwise wait for workers that wait for keys.
        self.close = Finalize(self, _end, args=(self._processes, self._pipes), exitpriority=1)
        context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        try:
            for _ in range(count):
                ours, theirs = context.Pipe()
                self._pipes.append(ours)
                _ends.add(ours)
                process = context.Process(target=_work, args=(function, theirs), daemon=True)
                with _blocked_signals():
                    process.start()
                self._processes.append(process)
                theirs.close()
        except OSError as error:
            self.close()
            raise UserError(
                f"the {count} loader workers can't be started ({error.strerror}): lower data.workers; 0 reads "
                "images in the main process"
            ) from None

    def ask(self, worker: int, key: Any) -> None:
        try:
            self._pipes[worker].send(key)
        except OSError:
            raise self._lost(worker) from None

    def fetch(self, worker: int) -> Any:
        """Return a worker's next value.

        Raises:
            UserError: what the function raised, or if the worker is gone.
        """
        try:
            value = _receive(self._pipes[worker])
        except (EOFError, OSError):
            raise self._lost(worker) from None
        if isinstance(value, _Failure):
            raise value.error
        return value

    def _lost(self, worker: int) -> UserError:
        process = self._processes[worker]
        process.join(timeout=5)
        code = process.exitcode
        how = f"was killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended (exit code {code})"
        return UserError(
            f"a loader worker (process {process.pid}) {how} while it read images, as the system does where memory runs "
            "out: lower data.workers (0 reads images in the main process) or batch_size"
        )


def _end(processes: Sequence[BaseProcess], pipes: Sequence[Connection]) -> None:
    for pipe in pipes:
        pipe.close()
    for process in processes:
        process.kill()  # it has no state to lose
    for process in processes:
        process.join()


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Block signals while a worker starts, until it ignores them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Failure:
    """An error sent from a worker to the main process."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _work(function: Callable[[Any], Any], pipe: Connection) -> None:
    """Compute values until the pipe ends."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)
    for end in list(_ends):
        end.close()
    with suppress(RuntimeError):  # of a machine that allows no more threads; the worker then ends after its value
        threading.Thread(target=_end_with, args=(pipe.fileno(),), daemon=True).start()
    torch.set_num_threads(1)  # the threads of the main process were not forked
    try:
        while True:
            key = pipe.recv()
            _send(pipe, _value(function, key))
    except (EOFError, OSError):
        return  # the main process is gone


def _end_with(descriptor: int) -> None:
    """End this process as soon as the other end of its pipe is closed."""
    poll = select.poll()
    poll.register(descriptor, 0)  # nothing but that the other end hung up
    poll.poll()
    os._exit(0)


def _value(function: Callable[[Any], Any], key: Any) -> Any:
    try:
        return function(key)
    except UserError as error:
        return _Failure(error)
    except MemoryError:
        return _Failure(UserError("the memory does not suffice to read images: lower data.workers or batch_size"))
    except Exception:  # noqa: BLE001 (raised again in the main process)
        return _Failure(RuntimeError(f"a loader worker failed:\n{traceback.format_exc()}"))


class _Pickler(pickle.Pickler):
    """Pickles tensors as arrays, whose bytes are sent directly; torch would put them into /dev/shm."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is torch.Tensor:
            return torch.from_numpy, (value.contiguous().numpy(),)
        return NotImplemented


def _send(pipe: Connection, value: Any) -> None:
    stream, buffers = BytesIO(), list[pickle.PickleBuffer]()
    _Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(value)
    views = [buffer.raw() for buffer in buffers]
    pipe.send_bytes(pickle.dumps([view.nbytes for view in views]))
    pipe.send_bytes(stream.getbuffer())
    for view in views:
        _write(pipe.fileno(), view)


def _receive(pipe: Connection) -> Any:
    sizes = pickle.loads(pipe.recv_bytes())
    content = pipe.recv_bytes()
    buffers = [bytearray(size) for size in sizes]
    for buffer in buffers:
        _read(pipe.fileno(), memoryview(buffer))
    return pickle.loads(content, buffers=buffers)


def _write(descriptor: int, view: memoryview) -> None:
    while view:
        view = view[os.write(descriptor, view) :]


def _read(descriptor: int, view: memoryview) -> None:
    while view:
        count = os.readv(descriptor, [view])
        if not count:
            raise EOFError
        view = view[count:]
