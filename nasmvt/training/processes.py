"""Processes that train together: each computes its parts of every step, and all hold the same weights.

`DistributedDataParallel` does not fit: a step has several backward passes, each through other modules that hold views
of the weights. Gradients are summed once per step instead, for what the step touched, the same in all processes.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from nasmvt.data.loader import Parts
from nasmvt.errors import UserError

_BUCKET = 25 * 2**20
"""Bytes that are sent at a time: large enough for the bandwidth, small enough that one copy of them costs little."""
_GIVEN = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
"""What torchrun, and whoever else starts the processes of a training, puts into their environment."""


class ProcessLost(UserError):
    """Another process of the training ended or can't be reached."""


class Processes:
    """One process alone; a `ProcessGroup` is several."""

    rank = 0
    count = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and talks to the user."""
        return self.rank == 0

    def parts(self, accumulate: int) -> Parts:
        """Return which parts of a step this process computes, if every process computes `accumulate` of them."""
        first = self.rank * accumulate
        return Parts(of=self.count * accumulate, wanted=range(first, first + accumulate))

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one type by their sums over the processes, which must all give the same shapes."""

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace float32 tensors by their means over the processes."""
        if self.count > 1:
            means = [tensor.double() / self.count for tensor in tensors]  # equal ones come back to the last bit
            self.add_up(means)
            for tensor, mean in zip(tensors, means, strict=True):
                tensor.copy_(mean)

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the mean of a float32 tensor over the processes."""
        result = tensor.clone()
        self.average([result])
        return result

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """Return for each flag whether any process raised it; all give equally many."""
        return list(flags)

    def gather(self, value: Any) -> list[Any]:
        """Return what each process gives, in their order; nobody goes on before all have given."""
        return [value]

    def agreed(self, flag: bool) -> bool:
        """Return whether any process raised its flag; several processes learn of it one call later."""
        return flag


ALONE = Processes()


class ProcessGroup(Processes):
    """The processes of torch's default process group.

    Raises:
        ProcessLost: from every method, if another process ended.
    """

    def __init__(self) -> None:
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        # What is not on the device must not wait for it.
        self._beside: Any = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
        self._asked: tuple[Tensor, Any] | None = None

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace float32 tensors by their sums over the processes, which must all give the same shapes."""
        with _told():
            sent = []
            for bucket in _buckets(tensors):
                flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
                sent.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
            for bucket, flat, work in sent:
                work.wait()
                sums = flat.split([tensor.numel() for tensor in bucket])
                for tensor, total in zip(bucket, sums, strict=True):
                    tensor.copy_(total.view_as(tensor))

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """Return for each flag whether any process raised it; all give equally many."""
        raised = torch.tensor(flags, dtype=torch.uint8)
        with _told():
            dist.all_reduce(raised, dist.ReduceOp.MAX, group=self._beside)
        return [bool(flag) for flag in raised.tolist()]

    def gather(self, value: Any) -> list[Any]:
        """Return what each process gives, in their order; nobody goes on before all have given."""
        found = [None] * self.count
        with _told():
            dist.all_gather_object(found, value, group=self._beside)
        return found

    def agreed(self, flag: bool) -> bool:
        """Return whether any process had raised its flag at the call before, without waiting for the slowest."""
        with _told():
            before = self._asked
            raised = torch.tensor([int(flag)])
            work = dist.all_reduce(raised, dist.ReduceOp.MAX, group=self._beside, async_op=True)
            self._asked = (raised, work)
            if before is None:
                return False
            before[1].wait()
            return bool(before[0].item())


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the tensors in groups of some size."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and size + tensor.nbytes > _BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        yield bucket


@contextmanager
def _told() -> Iterator[None]:
    """Say in a sentence that the others are gone."""
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:120]
        raise ProcessLost(f"another process of the training ended or can't be reached ({reason})") from None


def started_together() -> bool:
    """Return whether something like torchrun started this process together with others."""
    return os.environ.keys() >= _GIVEN and int(os.environ["WORLD_SIZE"]) > 1


def restarted() -> bool:
    """Return whether torchrun started this process anew after one of them ended (`--max-restarts`)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Yield the processes that train together: those of the process group that there is, or torchrun's, or this one.

    Raises:
        ProcessLost: if the others can't be reached.
    """
    if dist.is_initialized():
        yield ProcessGroup()
    elif started_together():
        with _told():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        try:
            yield ProcessGroup()
        finally:
            dist.destroy_process_group()
    else:
        yield ALONE
