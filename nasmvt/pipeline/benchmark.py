"""How fast the tasks of an exported folder run, by runtime, batch size and threads.

Source of the protocol "fps": LVT (CVPR 2022), `tools/benchmark.py` of its segmentation code.
"""

import multiprocessing
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch

from nasmvt.export import load
from nasmvt.pipeline.datasets import TaskData
from nasmvt.pipeline.evaluate import data_configs
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.modes import evaluating
from nasmvt.tasks.network import TaskNetwork, whole_infos

_WARM_UP = 5
"""Calls that are not counted; LVT's number."""
_MOST_CALLS = 1000
_FEWEST_CALLS = 10


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is measured."""

    task: str
    runtime: str
    """A name of `nasmvt.export.runtimes.RUNTIMES`."""
    batch: int
    """Images per call."""
    threads: int
    """Threads of an operator."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What was measured."""

    images_per_second: float
    p50: float
    """Milliseconds per call: the median."""
    p90: float
    p99: float
    memory: float
    """MiB by which loading and computing raised the peak of the process."""
    calls: int
    """Calls that were counted."""

    @classmethod
    def of(cls, seconds: list[float], images: int, memory: float) -> "Speed":
        """Summarise calls.

        Args:
            seconds: of each call.
            images: per call.
            memory: MiB.
        """
        p50, p90, p99 = (1000 * float(value) for value in np.percentile(seconds, [50, 90, 99]))
        speed = images * len(seconds) / sum(seconds)
        return cls(images_per_second=speed, p50=p50, p90=p90, p99=p99, memory=memory, calls=len(seconds))


def benchmark(
    folder: Path,
    *,
    runtimes: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    batches: Sequence[int] | None = None,
    threads: Sequence[int] | None = None,
    seconds: float = 3.0,
    fps: int | None = None,
    changes: Sequence[str] = (),
) -> list[tuple[Setting, Speed]]:
    """Measure every combination of tasks, batch sizes, threads and runtimes.

    Args:
        folder: the exported folder.
        runtimes: None: PyTorch.
        tasks: None: all.
        batches: images per call; None: one. Not for `fps`, whose images come one by one.
        threads: of an operator; None: one.
        seconds: how long each is measured.
        fps: how many images of val are measured instead, from the placed image to the prediction (see `measure_fps`).
        changes: of the settings of the data of val.

    Raises:
        UserError: if the folder has no such task, or lacks a runtime's files.
    """
    loaded = load(folder)
    chosen = [loaded.task(name).task.name for name in tasks or loaded.tasks]
    sizes = [1] if fps is not None else batches or [1]
    settings = [
        Setting(task=name, runtime=runtime, batch=size, threads=number)
        for name, size, number, runtime in product(chosen, sizes, threads or [1], runtimes or ["torch"])
    ]
    if fps is None:
        return list(measure(folder, settings, seconds))
    return list(measure_fps(folder, settings, data_configs(loaded, changes), fps))


def measure(folder: Path, settings: Iterable[Setting], seconds: float) -> Iterator[tuple[Setting, Speed]]:
    """Measure the outputs of random images on the canvas, for some seconds each; yield what comes out.

    Every setting has a process of its own, one after the other, so that threads and memory are its own.

    Raises:
        UserError: if the folder has no such task, or lacks a runtime's files.
    """
    yield from _apart((setting, (folder, setting, seconds, None)) for setting in settings)


def measure_fps(
    folder: Path, settings: Iterable[Setting], configs: dict[str, TaskConfig], images: int
) -> Iterator[tuple[Setting, Speed]]:
    """Measure the images of val, in order and one by one, from the placed image to the prediction at its original size.

    Reading and placing an image is not counted, nor are the first five images.

    Args:
        folder: the exported folder.
        settings: of batch size 1.
        configs: where the data of the tasks lie.
        images: most images that are counted.

    Raises:
        UserError: if the folder has no such task, lacks a runtime's files, or data are missing.
    """
    yield from _apart((setting, (folder, setting, images, configs[setting.task])) for setting in settings)


_Work = tuple[Path, Setting, float, TaskConfig | None]


def _apart(work: Iterable[tuple[Setting, _Work]]) -> Iterator[tuple[Setting, Speed]]:
    context = multiprocessing.get_context("spawn")
    for setting, arguments in work:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            yield setting, pool.submit(_run, *arguments).result()


def _run(folder: Path, setting: Setting, limit: float, config: TaskConfig | None) -> Speed:
    torch.set_num_threads(setting.threads)
    before = _peak()
    loaded = load(folder, setting.runtime, tasks=[setting.task], threads=setting.threads)
    loaded.task(setting.task)  # refuses an unknown one
    network = loaded.networks[setting.task]
    with evaluating(network), torch.inference_mode():
        if config is None:
            seconds = _time_outputs(network, loaded.model.tasks[setting.task].nominal_size, setting.batch, limit)
        else:
            data = TaskData(setting.task, config, loaded.config["seed"], loaded.model.tasks[setting.task].info)
            seconds = _time_predictions(network, data, int(limit))
    return Speed.of(seconds, setting.batch, _peak() - before)


def _time_outputs(network: TaskNetwork, canvas: tuple[int, int], batch: int, limit: float) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, *canvas), generator=generator, dtype=torch.uint8)
    infos = whole_infos(images)
    for _ in range(_WARM_UP):
        network.outputs(images, infos)
    seconds: list[float] = []
    while len(seconds) < _MOST_CALLS and (len(seconds) < _FEWEST_CALLS or sum(seconds) < limit):
        start = time.perf_counter()
        network.outputs(images, infos)
        seconds.append(time.perf_counter() - start)
    return seconds


def _time_predictions(network: TaskNetwork, data: TaskData, images: int) -> list[float]:
    seconds: list[float] = []
    for batch in data.val_images():
        for place, info in enumerate(batch.infos):
            if len(seconds) == _WARM_UP + images:
                break
            image = batch.images[place : place + 1]
            start = time.perf_counter()
            network.predict(image, [info])
            seconds.append(time.perf_counter() - start)
    return seconds[_WARM_UP:] or seconds


def _peak() -> float:
    """Return the most MiB that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
