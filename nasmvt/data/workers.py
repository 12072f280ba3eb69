"""Computing batches in other processes, which must not change them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from nasmvt.errors import UserError


def prepare(function: Callable[[Any], Any], keys: Iterable[Any], workers: int) -> Iterator[Any]:
    """Yield the value of `function` for each key, in order.

    Args:
        function: picklable; what it returns must be a function of the key alone.
        keys: any number of keys, even endless.
        workers: processes that compute ahead; 0 computes each value when it is asked for.

    Raises:
        UserError: what `function` raises.
    """
    if not workers:
        yield from map(function, keys)
        return
    # One key is one whole batch: `batch_size=None` turns off DataLoader's own batching.
    loader: DataLoader[Any] = DataLoader(
        _Prepared(function),
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        collate_fn=_unchanged,
        # Its own generator, or it would draw from the global one and change what the network draws.
        generator=torch.Generator(),
    )
    for value in loader:
        if isinstance(value, _Failure):
            raise value.error
        yield value


class _Prepared(TorchDataset[Any]):
    """What `DataLoader` asks: the value of a function for a key."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def __getitem__(self, key: Any) -> Any:
        try:
            return self._function(key)
        except UserError as error:
            # A worker's exception would come back with its traceback as its text.
            return _Failure(error)


class _Failure:
    """An error on its way from a worker to the training process."""

    def __init__(self, error: UserError) -> None:
        self.error = error


def _unchanged(value: Any) -> Any:
    return value
