"""Measuring the latencies of a space's archs on this device, or on another one by a kit of ONNX files."""

import multiprocessing
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import ConfigDict, Field

from nasmvt.config import Config, parse, read_json
from nasmvt.cost import Costs, LatencyTable
from nasmvt.cost.latency_model import Parts, design
from nasmvt.cost.latency_table import Setting, TaskLatency, identity, plain
from nasmvt.errors import UserError
from nasmvt.export import measure_latency as standalone
from nasmvt.export.onnx_graph import need, to_onnx, write_graphs
from nasmvt.export.tracing import trace
from nasmvt.files import new_folder, write_json, write_text
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.supernet import load_supernet
from nasmvt.seeding import seeded
from nasmvt.space import Arch, SearchSpace, Sharing
from nasmvt.supernet import Supernet
from nasmvt.tasks.network import whole_infos
from nasmvt.tasks.precision import autocast, check_precision
from nasmvt.tasks.task import Task

T = TypeVar("T")

RUNTIMES = ("torch", "onnx")


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured."""

    archs: int = 64
    """Archs that the tables are fitted on."""
    held_out: int = 20
    """Others, drawn at random, that judge the tables; the final ones are fitted on all."""
    rounds: int = 6
    """How often each arch is visited."""
    passes: int = 5
    """Passes of a visit, in turns with the reference."""


@dataclass(frozen=True)
class Networks:
    """Where the networks come from that are timed."""

    space: SearchSpace
    tasks: Mapping[str, Task]
    run: Path | None = None
    """A run with a trained supernet; None: the weights are random."""

    def supernet(self, device: torch.device | str) -> Supernet:
        """Return the weights.

        Raises:
            UserError: if the run's supernet is not trained.
        """
        if self.run is not None:
            return load_supernet(Run.open(self.run), torch.device(device)).eval()
        with seeded(0, "latency"):
            return Supernet(self.space, self.tasks).to(device).eval()

    @property
    def reference(self) -> Arch:
        """The arch that all others are timed in turns with."""
        ends = self.space.covering
        return ends[len(ends) // 2]


def setting_here(
    *,
    runtime: str = "torch",
    device: torch.device | str = "cpu",
    threads: int = 1,
    batch: int = 1,
    precision: Any = "fp32",
) -> Setting:
    """Return a setting on this machine.

    Raises:
        UserError: if the device or the runtime can't compute so.
    """
    device = torch.device(device)
    if runtime not in RUNTIMES:
        raise UserError(f"latency is measured by the runtimes torch and onnx, not {runtime!r}")
    if runtime == "onnx":
        need("onnx", "onnxscript", "onnxruntime")
        if device.type != "cpu" or precision != "fp32":
            raise UserError(
                f"ONNX Runtime is measured on the CPU in fp32, not on {device} in {precision}: leave it out"
            )
    check_precision(precision, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else standalone.processor()
    return Setting(
        runtime=runtime, device=str(device), processor=name, threads=threads, batch=batch, precision=precision
    )


def is_here(setting: Setting) -> bool:
    """Return whether this machine is the one of a setting."""
    if torch.device(setting.device).type == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_name(setting.device) == setting.processor
    return setting.processor == standalone.processor()


def time_archs(
    networks: Networks, task: str, archs: Sequence[Arch], setting: Setting, effort: Effort
) -> tuple[float, dict[Arch, float]]:
    """Time archs in turns with the reference, in a process of its own.

    Returns:
        The milliseconds of the reference, and what each arch takes over that.

    Raises:
        UserError: if a network can't be exported for the runtime, or a run's supernet is not trained.
    """
    work = {"torch": _time_torch, "onnx": _time_onnx}[setting.runtime]
    milliseconds, ratios = apart(work, networks, task, list(archs), setting, effort)
    return milliseconds, {arch: ratios[arch.id] for arch in archs}


def apart(work: Callable[..., T], *arguments: object) -> T:
    """Do some work in a process of its own, so that its threads and memory are its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _time_torch(
    networks: Networks, task: str, archs: list[Arch], setting: Setting, effort: Effort
) -> tuple[float, dict[str, float]]:
    torch.set_num_threads(setting.threads)
    device = torch.device(setting.device)
    supernet = networks.supernet(device)
    sharing = supernet.sharing()
    generator = torch.Generator().manual_seed(0)
    size = (setting.batch, 3, *networks.tasks[task].nominal_size)
    images = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8).to(device)
    infos = whole_infos(images)
    named = {arch.id: arch for arch in (networks.reference, *archs)}

    def start(name: str) -> Callable[[], object]:
        network = supernet.materialize(named[name], sharing, (task,)).task(task).eval()

        def once() -> None:
            network.outputs(images, infos)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return once

    clock = standalone.clock_for(setting.threads if device.type == "cpu" else 0)
    with torch.inference_mode(), autocast(setting.precision, device):
        return standalone.interleaved(
            [arch.id for arch in archs], networks.reference.id, start, effort.rounds, effort.passes, clock
        )


def _time_onnx(
    networks: Networks, task: str, archs: list[Arch], setting: Setting, effort: Effort
) -> tuple[float, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        plan = _write_files(networks, task, archs, setting.batch, effort, Path(folder))
        found = standalone.time_task(Path(folder), plan, setting.threads)
    return found["milliseconds"], found["ratios"]


def _write_files(
    networks: Networks, task: str, archs: Sequence[Arch], batch: int, effort: Effort, folder: Path
) -> dict[str, Any]:
    """Write <arch>/network.onnx for some archs and the reference; return what the timing of a task needs to know."""
    supernet = networks.supernet("cpu")
    sharing, size = supernet.sharing(), networks.tasks[task].nominal_size
    reference = networks.reference
    for arch in dict.fromkeys([reference, *archs]):
        network = supernet.materialize(arch, sharing, (task,)).task(task).eval().requires_grad_(False)
        place = folder / arch.id
        place.mkdir(parents=True)
        write_graphs({"network": to_onnx(trace(network, size))}, place)
    return {
        "archs": {arch.id: arch.to_dict() for arch in archs},
        "reference": reference.id,
        "image_size": list(size),
        "batch": batch,
        "rounds": effort.rounds,
        "passes": effort.passes,
    }


# -- tables ---------------------------------------------------------------------------------------


def measure_table(
    networks: Networks,
    tasks: Sequence[str],
    setting: Setting,
    effort: Effort,
    on_task: Callable[[str, int], None] = lambda task, archs: None,
) -> LatencyTable:
    """Measure the latencies of some tasks on this machine.

    Args:
        networks: where they come from.
        tasks: of which tasks.
        setting: how they compute.
        effort: how much is measured.
        on_task: called with each task and the number of its archs before they are timed.
    """
    costs = Costs(networks.space, networks.tasks, Sharing.of({}))
    found = {}
    for task in tasks:
        chosen, others = _choose(costs, task, effort)
        on_task(task, len(chosen) + len(others))
        milliseconds, ratios = time_archs(networks, task, [*chosen, *others], setting, effort)
        found[task] = _fitted(costs, task, networks.reference, milliseconds, ratios, others)
    return LatencyTable(space=plain(networks.space), setting=setting, tasks=found)


def _choose(costs: Costs, task: str, effort: Effort) -> tuple[list[Arch], list[Arch]]:
    """Return the archs that the tables are fitted on, and those that judge them."""
    space, its = costs.space, costs.tasks[task]
    if its.size(space, space.smallest) != its.size(space, space.largest):
        raise UserError(
            f"latencies are measured with images of one size, but resolution.{task} lets archs choose that of the task "
            f"'{task}': measure other tasks, or bound its work by --max-gmacs"
        )
    chosen = design(Parts(space, costs.macs(task)), effort.archs, np.random.default_rng(0))
    rng, others = np.random.default_rng(1), dict[Arch, None]()
    while len(others) < min(effort.held_out, space.size - len(chosen)):
        others |= {arch: None for arch in [space.sample(rng)] if arch not in chosen}
    return chosen, list(others)


def _fitted(
    costs: Costs,
    task: str,
    reference: Arch,
    milliseconds: float,
    ratios: Mapping[Arch, float],
    others: Sequence[Arch],
) -> TaskLatency:
    held_out = {arch: ratios[arch] for arch in others}
    timed = {arch: ratio for arch, ratio in ratios.items() if arch not in held_out}
    return TaskLatency.fitted(
        costs.space, costs.tasks[task], costs.macs(task), reference, milliseconds, timed, held_out
    )


# -- kits -----------------------------------------------------------------------------------------

PLAN, TIMES = "plan.json", "times.json"


def write_kit(networks: Networks, tasks: Sequence[str], batch: int, effort: Effort, folder: Path) -> None:
    """Write a folder with ONNX files of archs, and the program that times them with numpy and onnxruntime alone.

    Raises:
        UserError: if the folder exists, a package is missing, or a network can't be exported.
    """
    need("onnx", "onnxscript")
    costs = Costs(networks.space, networks.tasks, Sharing.of({}))
    with new_folder(folder) as place:
        plans = {}
        for task in tasks:
            chosen, others = _choose(costs, task, effort)
            plan = _write_files(networks, task, [*chosen, *others], batch, effort, place / task)
            plans[task] = {**plan, "identity": identity(networks.tasks[task]), "held_out": [one.id for one in others]}
        write_json(place / PLAN, {"space": plain(networks.space), "tasks": plans})
        program = Path(standalone.__file__)
        write_text(place / program.name, program.read_text(encoding="utf-8"))


class _TaskTimes(Config):
    """What a kit measured for a task."""

    model_config = ConfigDict(extra="ignore")

    archs: dict[str, dict[str, Any]]
    reference: str
    batch: int
    identity: dict[str, Any]
    held_out: tuple[str, ...]
    milliseconds: float = Field(gt=0)
    ratios: dict[str, float]


class _Times(Config):
    """What a kit measured."""

    space: dict[str, Any]
    processor: str
    threads: int
    tasks: dict[str, _TaskTimes]


def read_times(path: Path, space: SearchSpace, tasks: Mapping[str, Task]) -> LatencyTable:
    """Return the table of what a kit measured on another machine.

    Raises:
        UserError: if the file is damaged, or of another space or other tasks.
    """
    times = parse(_Times, read_json(path), str(path))
    costs = Costs(space, tasks, Sharing.of({}))
    found = {}
    for name, task in times.tasks.items():
        if name not in tasks:
            raise UserError(
                f"{path} timed the task {name!r}, which is none of {space.name}'s here: give its experiment"
            )
        archs = {key: space.arch(values, str(path)) for key, values in task.archs.items()}
        ratios = {archs[key]: ratio for key, ratio in task.ratios.items()}
        reference = archs.get(task.reference) or Networks(space, tasks).reference
        fitted = _fitted(costs, name, reference, task.milliseconds, ratios, [archs[key] for key in task.held_out])
        found[name] = fitted.model_copy(update={"identity": task.identity})
    batch = next(iter(times.tasks.values())).batch
    setting = Setting(runtime="onnx", processor=times.processor, threads=times.threads, batch=batch)
    table = LatencyTable(space=times.space, setting=setting, tasks=found)
    table.check(space, tasks, list(found), path)
    return table
