"""Data sets, transforms and loaders: from files (or nothing, for the shapes) to batches of tensors."""

from typing import TYPE_CHECKING

from nasmvt.lazy import lazy_names

if TYPE_CHECKING:
    from nasmvt.data.config import AugmentationConfig as AugmentationConfig
    from nasmvt.data.config import DataConfig as DataConfig
    from nasmvt.data.dataset import Dataset as Dataset
    from nasmvt.data.dataset import Identity as Identity
    from nasmvt.data.eval_set import EvalSet as EvalSet
    from nasmvt.data.formats import register_format as register_format
    from nasmvt.data.loader import TrainLoader as TrainLoader
    from nasmvt.data.opening import open_dataset as open_dataset
    from nasmvt.data.pictures import UnreadableImage as UnreadableImage
    from nasmvt.data.pictures import read_picture as read_picture
    from nasmvt.data.splits import split_train as split_train
    from nasmvt.data.transforms import EvalTransform as EvalTransform
    from nasmvt.data.transforms import TrainTransform as TrainTransform
    from nasmvt.data.types import IGNORE as IGNORE
    from nasmvt.data.types import Batch as Batch
    from nasmvt.data.types import DataInfo as DataInfo
    from nasmvt.data.types import ImageInfo as ImageInfo
    from nasmvt.data.types import Sample as Sample

__getattr__, __all__ = lazy_names(__name__)
