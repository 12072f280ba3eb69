"""Files for other runtimes, added to an exported folder: what `nasmvt export` does after the folder is there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nasmvt.export.runtimes import AOTI, INT8, ONNX, PT2
from nasmvt.pipeline.deploy import IMAGES_TOO, Deployment, export_aoti, export_images, export_onnx, export_pt2
from nasmvt.pipeline.quantize import export_int8


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which files are wanted."""

    onnx: bool = False
    """`onnx/<task>.onnx`, and `model.onnx` of all tasks."""
    with_preprocessing: bool = False
    """`onnx/<task>.image.onnx`, which take images as they are; the files of `onnx` must be wanted or there."""
    int8: bool = False
    """`int8/<task>.onnx`, quantised; the files of `onnx` must be wanted or there."""
    pt2: bool = False
    """`pt2/<task>.pt2`."""
    aoti: bool = False
    """`aoti/<task>.pt2`, compiled for this kind of processor."""
    keep_float: Sequence[str] | None = None
    """Parts that are not quantised; None: those that hurt, found by measuring."""

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return self.onnx or self.with_preprocessing or self.int8 or self.pt2 or self.aoti


def add_files(work: Deployment, wanted: Wanted) -> Iterator[tuple[str, dict[str, Any]]]:
    """Write files, one runtime after the other; yield its name and what was measured.

    This is how much each file differs from PyTorch, and of "int8" what each task loses (see `export_int8`).

    Raises:
        UserError: if a package is missing, a network can't be exported, a file does not compute what PyTorch does, or
            there are such files already.
    """
    if wanted.onnx:
        yield ONNX, export_onnx(work)
    if wanted.with_preprocessing:
        yield IMAGES_TOO, export_images(work)
    if wanted.pt2:
        yield PT2, export_pt2(work)
    if wanted.aoti:
        yield AOTI, export_aoti(work)
    if wanted.int8:
        yield INT8, export_int8(work, wanted.keep_float)
