"""Data sets, transforms and loaders: from files (or nothing, for the shapes) to batches of tensors."""

from typing import TYPE_CHECKING

from nasmvt.lazy import importer

if TYPE_CHECKING:
    from nasmvt.data.config import AugmentationConfig, DataConfig
    from nasmvt.data.dataset import Dataset, Identity
    from nasmvt.data.eval_set import EvalSet
    from nasmvt.data.formats import register_format
    from nasmvt.data.loader import TrainLoader
    from nasmvt.data.opening import open_dataset
    from nasmvt.data.pictures import UnreadableImage, read_picture
    from nasmvt.data.splits import split_train
    from nasmvt.data.transforms import EvalTransform, TrainTransform
    from nasmvt.data.types import IGNORE, Batch, DataInfo, ImageInfo, Sample

_HOME = {
    "AugmentationConfig": "config",
    "DataConfig": "config",
    "Dataset": "dataset",
    "Identity": "dataset",
    "open_dataset": "opening",
    "register_format": "formats",
    "EvalSet": "eval_set",
    "TrainLoader": "loader",
    "UnreadableImage": "pictures",
    "read_picture": "pictures",
    "split_train": "splits",
    "EvalTransform": "transforms",
    "TrainTransform": "transforms",
    "IGNORE": "types",
    "Batch": "types",
    "DataInfo": "types",
    "ImageInfo": "types",
    "Sample": "types",
}

__all__ = [
    "IGNORE",
    "AugmentationConfig",
    "Batch",
    "DataConfig",
    "DataInfo",
    "Dataset",
    "EvalSet",
    "EvalTransform",
    "Identity",
    "ImageInfo",
    "Sample",
    "TrainLoader",
    "TrainTransform",
    "UnreadableImage",
    "open_dataset",
    "read_picture",
    "register_format",
    "split_train",
]

__getattr__ = importer(__name__, _HOME)
