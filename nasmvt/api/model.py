"""The steps on a finished model: export, files for other runtimes, evaluation, prediction, speed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nasmvt.api.run import AnyRun, as_texts, open_run
from nasmvt.pipeline.add_files import Wanted
from nasmvt.pipeline.add_files import add_files as add
from nasmvt.pipeline.benchmark import benchmark as measure
from nasmvt.pipeline.deploy import Deployment
from nasmvt.pipeline.export import export as export_run
from nasmvt.pipeline.serve import Served
from nasmvt.tasks.draw import MIN_SCORE


def export(
    run: AnyRun = None,
    *,
    arch: str = "best",
    out: Path | str | None = None,
    accept_unfinished: bool = False,
    accept_changed_data: bool = False,
) -> Path:
    """Write a run's model as one folder; return it. `nasmvt.load` reads it.

    Args:
        run: the run.
        arch: "best" (retrained if it was, else with the supernet's weights), or the name of another retrained arch.
        out: the folder; None: `export` in the run.
        accept_unfinished: accept the result of an interrupted search.
        accept_changed_data: continue if the data changed since the run began.

    Raises:
        UserError: if the run has no such model, or the folder exists.
    """
    return export_run(
        open_run(run),
        name=arch,
        out=None if out is None else Path(out),
        accept_unfinished=accept_unfinished,
        accept_changed_data=accept_changed_data,
    )


def evaluate(
    folder: Path | str,
    *,
    changes: Mapping[str, Any] | None = None,
    protocol: str | None = None,
    device: str = "auto",
    precision: str = "fp32",
    runtime: str = "torch",
) -> dict[str, dict[str, float]]:
    """Return the metrics of an exported model on the val splits of its data, in percent, by task and name.

    Args:
        folder: the exported folder.
        changes: settings of the data by dotted key, such as `{"tasks.det.data.root": "/data/coco"}`.
        protocol: how test images are placed: "fit", "paper"; None: as the model was made.
        device: "cpu", "cuda", "cuda:1" ...; "auto": CUDA if there is any.
        precision: in which numbers networks compute: "fp32", or "bf16" or "fp16" where the device has them.
        runtime: what computes: "torch", "compiled" (by `torch.compile`), or "onnx", "int8", "pt2" or "aoti" for files
            that `add_files` wrote (on the CPU).

    Raises:
        UserError: if the folder is not an exported model, data are missing or have other classes, or the device lacks
            the precision.
    """
    served = Served.open(Path(folder), runtime=runtime, device=device, precision=precision)
    return served.evaluate(as_texts(changes), protocol).metrics


def predict(
    folder: Path | str,
    pictures: Sequence[Path | str] = (),
    *,
    out: Path | str,
    tasks: Sequence[str] | None = None,
    count: int = 8,
    skip_unreadable: bool = False,
    protocol: str | None = None,
    min_score: float = MIN_SCORE,
    device: str = "auto",
    precision: str = "fp32",
    runtime: str = "torch",
) -> list[Path]:
    """Predict images, draw them and write what was predicted; return the paths of the drawn images.

    Args:
        folder: the exported folder.
        pictures: images, or folders of images; none: the first `count` of each task's val split.
        out: the folder for the results.
        tasks: None: all.
        count: images of each val split.
        skip_unreadable: whether images that can't be decoded are skipped.
        protocol: see `evaluate`.
        min_score: detected objects with a lower score are not drawn; they are in the JSON.
        device: see `evaluate`.
        precision: see `evaluate`.
        runtime: see `evaluate`.

    Raises:
        UserError: as `evaluate` does, or if an image can't be read.
    """
    served = Served.open(Path(folder), runtime=runtime, device=device, precision=precision, tasks=tasks)
    given = [Path(picture) for picture in pictures]
    return served.predict(
        given,
        Path(out),
        tasks=tasks,
        count=count,
        skip_unreadable=skip_unreadable,
        protocol=protocol,
        min_score=min_score,
    )


def add_files(
    folder: Path | str,
    *,
    onnx: bool = False,
    with_preprocessing: bool = False,
    int8: bool = False,
    pt2: bool = False,
    aoti: bool = False,
    keep_float: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    any_size: bool = False,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Add files for other runtimes to an exported folder; return what was measured of each kind of files, by its name.

    Files are kept if they compute what PyTorch does on images of the search split: this is by how much each differs, of
    the largest value. Of "int8", it is what each task loses on val.

    Args:
        folder: the exported folder.
        onnx: `onnx/<task>.onnx`, and `model.onnx` of all tasks.
        with_preprocessing: `onnx/<task>.image.onnx`, which take an image as it is and give its prediction.
        int8: `int8/<task>.onnx`, quantised.
        pt2: `pt2/<task>.pt2`, programs of torch.export.
        aoti: `aoti/<task>.pt2`, compiled for this kind of processor; needs a C++ compiler.
        keep_float: parts that are not quantised; None: those that hurt, found by measuring.
        tasks: None: all.
        any_size: whether files take images of other sizes than the canvas too; they are slower.
        changes: settings of the data, see `evaluate`.

    Raises:
        UserError: if a package is missing, a network can't be exported, a file does not compute what PyTorch does, or
            there are such files already.
    """
    work = Deployment.open(Path(folder), tasks=tasks, any_size=any_size, changes=as_texts(changes))
    wanted = Wanted(
        onnx=onnx, with_preprocessing=with_preprocessing, int8=int8, pt2=pt2, aoti=aoti, keep_float=keep_float
    )
    return dict(add(work, wanted))


def benchmark(
    folder: Path | str,
    *,
    runtimes: Sequence[str] = ("torch",),
    tasks: Sequence[str] | None = None,
    batches: Sequence[int] = (1,),
    threads: Sequence[int] = (1,),
    seconds: float = 3.0,
    fps: int | None = None,
    changes: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Measure how fast an exported model is on the CPU; return a row for every combination of settings.

    A row has `task`, `runtime`, `batch`, `threads`, and what was measured: `images_per_second`, `p50`, `p90` and `p99`
    (milliseconds per call), `memory` (MiB that loading and computing add) and `calls`. Every row is measured in a
    process of its own: a program that calls this guards its main part by `if __name__ == "__main__":`.

    Args:
        folder: the exported folder.
        runtimes: what computes: "torch", "compiled", "onnx", "int8", "pt2", "aoti".
        tasks: None: all.
        batches: images per call.
        threads: of an operator.
        seconds: how long each is measured.
        fps: measure so many images of val one by one instead, predictions at their original size included, without the
            first five (LVT's protocol).
        changes: settings of the data, see `evaluate`.

    Raises:
        UserError: if the folder has no such task, or lacks a runtime's files.
    """
    found = measure(
        Path(folder),
        runtimes=runtimes,
        tasks=tasks,
        batches=batches,
        threads=threads,
        seconds=seconds,
        fps=fps,
        changes=as_texts(changes),
    )
    return [{**asdict(setting), **asdict(speed)} for setting, speed in found]
