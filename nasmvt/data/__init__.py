"""Data sets, transforms and loaders: from files (or nothing, for the shapes) to batches of tensors."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nasmvt.data.config import AugmentationConfig, DataConfig
    from nasmvt.data.dataset import Dataset, open_dataset
    from nasmvt.data.loader import EvalBatches, TrainLoader, eval_batches
    from nasmvt.data.pictures import UnreadableImage, read_picture
    from nasmvt.data.splits import split_train
    from nasmvt.data.transforms import EvalTransform, TrainTransform
    from nasmvt.data.types import IGNORE, Batch, DataInfo, ImageInfo, Kind, Sample

_HOME = {
    "AugmentationConfig": "config",
    "DataConfig": "config",
    "Dataset": "dataset",
    "open_dataset": "dataset",
    "EvalBatches": "loader",
    "TrainLoader": "loader",
    "eval_batches": "loader",
    "UnreadableImage": "pictures",
    "read_picture": "pictures",
    "split_train": "splits",
    "EvalTransform": "transforms",
    "TrainTransform": "transforms",
    "IGNORE": "types",
    "Batch": "types",
    "DataInfo": "types",
    "ImageInfo": "types",
    "Kind": "types",
    "Sample": "types",
}

__all__ = [
    "IGNORE",
    "AugmentationConfig",
    "Batch",
    "DataConfig",
    "DataInfo",
    "Dataset",
    "EvalBatches",
    "EvalTransform",
    "ImageInfo",
    "Kind",
    "Sample",
    "TrainLoader",
    "TrainTransform",
    "UnreadableImage",
    "eval_batches",
    "open_dataset",
    "read_picture",
    "split_train",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that reading a `DataConfig` does not load torchvision."""
    if name not in _HOME:
        raise AttributeError(f"module 'nasmvt.data' has no attribute {name!r}")
    return getattr(import_module(f"nasmvt.data.{_HOME[name]}"), name)
