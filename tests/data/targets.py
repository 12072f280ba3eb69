"""Targets of any kind as plain lists, to be compared."""

import torch

from nasmvt.data.masks import ObjectMasks
from nasmvt.data.segmentation import PackedLabels


def plain(target):
    """Return a target as lists, to be compared."""
    if isinstance(target, dict):
        return {key: plain(value) for key, value in target.items()}
    if isinstance(target, ObjectMasks | PackedLabels):
        return target.dense().tolist()
    return torch.as_tensor(target).tolist()
