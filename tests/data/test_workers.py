"""Workers compute the same values, hear no signals, and what ends one is said in a sentence."""

import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from nasmvt.data.workers import prepare
from nasmvt.errors import UserError


def value(key: int):
    generator = torch.Generator().manual_seed(key)
    image = torch.randint(0, 256, (3, 300, 200), generator=generator, dtype=torch.uint8)
    return {
        "image": image,
        "strided": image[:, ::2],
        "scalar": torch.tensor(key),
        "none": torch.zeros(0, 4),
        "key": key,
    }


def pid_after(key: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def pid_then_long(key: int) -> int:
    if key >= 4:
        time.sleep(600)  # as long as the decoding of a huge image
    return os.getpid()


def die_at_five(key: int) -> bytes:
    if key == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return bytes(1 << 20)


def without_memory(key: int) -> int:
    raise MemoryError


def test_values_come_in_order_and_equal_those_of_one_process():
    for ours, theirs in zip(prepare(value, range(7), 3), prepare(value, range(7), 0), strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["key"] == theirs["key"]
        for name in ("image", "strided", "scalar", "none"):
            assert ours[name].dtype == theirs[name].dtype
            assert ours[name].shape == theirs[name].shape
            assert torch.equal(ours[name], theirs[name])
        ours["image"] += 1  # the memory is the receiver's own


def test_endless_keys_are_asked_for_a_few_ahead():
    asked = []
    keys = (asked.append(n) or n for n in itertools.count())
    stream = prepare(value, keys, 2)
    assert [next(stream)["key"] for _ in range(3)] == [0, 1, 2]
    stream.close()
    assert len(asked) <= 3 + 2 * 2


def test_a_killed_worker_is_noticed_at_once_and_named():
    started = time.monotonic()
    with pytest.raises(UserError, match=r"loader worker \(process \d+\) was killed by SIGKILL .*lower data.workers"):
        list(prepare(die_at_five, range(20), 2))
    assert time.monotonic() - started < 10


def test_workers_ignore_the_signals_of_their_group():
    stream = prepare(pid_after, itertools.count(), 2)
    workers = {next(stream), next(stream)}
    assert len(workers | {os.getpid()}) == 3
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for worker in workers:
            os.kill(worker, number)
    assert {next(stream) for _ in range(8)} == workers
    stream.close()
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


def test_memory_that_does_not_suffice_names_the_setting():
    with pytest.raises(UserError, match=r"lower data\.workers or batch_size"):
        list(prepare(without_memory, range(2), 1))


ORPHANS = """
import itertools, sys
from nasmvt.data.workers import prepare
from tests.data.test_workers import pid_then_long
streams = [prepare(pid_then_long, itertools.count(), 2) for _ in range(2)]
print(*{next(stream) for stream in streams for _ in range(2)}, flush=True)
{end}
"""


@pytest.mark.parametrize("end", ["sys.stdin.read()", "sys.exit()"], ids=["killed", "ended"])
def test_no_worker_outlives_the_process_that_feeds_it_whatever_it_is_doing(end):
    process = subprocess.Popen(
        [sys.executable, "-c", ORPHANS.replace("{end}", end)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    workers = [int(word) for word in process.stdout.readline().split()]
    assert len(workers) == 4
    if end != "sys.exit()":
        process.kill()
    process.wait(timeout=30)
    deadline = time.monotonic() + 10
    while alive := [worker for worker in workers if _running(worker)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)
    process.stdin.close()
    process.stdout.close()


def _running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_nothing_is_drawn_from_the_global_generators():
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    list(prepare(value, range(4), 2))
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()
