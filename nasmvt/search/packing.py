"""Tensors as plain arrays, which other processes of a machine read from shared memory without a copy."""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class PackedTensor:
    """The bytes of a tensor, pickled out of band, so that shared memory holds them once."""

    bytes: np.ndarray
    """(number of bytes,) uint8."""
    dtype: torch.dtype
    shape: torch.Size


def pack(value: Any) -> Any:
    """Replace every tensor inside dicts, lists and tuples by a `PackedTensor`.

    Tensors that share memory (tied parameters) become one.
    """
    return _pack(value, {})


def _pack(value: Any, memo: dict[Any, PackedTensor]) -> Any:
    match value:
        case torch.Tensor():
            key = (value.data_ptr(), value.dtype, value.shape, value.stride(), value.device)
            if key not in memo:
                flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                memo[key] = PackedTensor(flat.numpy(), value.dtype, value.shape)
            return memo[key]
        case dict():
            return {key: _pack(item, memo) for key, item in value.items()}
        case list() | tuple():
            return type(value)(_pack(item, memo) for item in value)
    return value


def unpack(value: Any) -> Any:
    """Replace every `PackedTensor` by a tensor.

    They use the packed memory, which may be read-only: they must not be written to.
    """
    match value:
        case PackedTensor():
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
                return torch.from_numpy(value.bytes).view(value.dtype).reshape(value.shape)
        case dict():
            return {key: unpack(item) for key, item in value.items()}
        case list() | tuple():
            return type(value)(unpack(item) for item in value)
    return value


def fingerprint(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return sixteen hexadecimal digits that depend on every name, shape and value."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        packed = pack(tensor)
        digest.update(f"{name} {packed.dtype} {tuple(packed.shape)}".encode())
        digest.update(packed.bytes.data)
    return digest.hexdigest()[:16]
