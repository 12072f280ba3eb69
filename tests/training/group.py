"""Processes that train together, forked from the test."""

import multiprocessing
import os
import pickle
import signal
import socket
from collections.abc import Callable
from typing import Any

import torch

from nasmvt.training.processes import joined


def together(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call `function(processes, *arguments)` in processes that are joined; return what each returns.

    An exception is returned as it is, and None of a process that was killed.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    context = multiprocessing.get_context("fork")
    pipes, started = [], []
    for rank in range(count):
        ours, theirs = context.Pipe(duplex=False)
        given = {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        process = context.Process(target=_join, args=(given, theirs, function, arguments))
        process.start()
        theirs.close()
        pipes.append(ours)
        started.append(process)
    results = []
    for pipe, process in zip(pipes, started, strict=True):
        try:
            results.append(pickle.loads(pipe.recv_bytes()) if pipe.poll(180) else TimeoutError())
        except EOFError:
            results.append(None)
        process.join(5)
        process.kill()
    return results


def _join(given: dict[str, str], pipe: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(given)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with joined(torch.device("cpu")) as processes:
            result = function(processes, *arguments)
    except Exception as error:  # noqa: BLE001 (the test looks at it)
        result = error
    pipe.send_bytes(pickle.dumps(result))  # tensors by value: this process ends before they are read
    os._exit(0)
