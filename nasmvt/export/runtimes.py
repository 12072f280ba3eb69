"""Running a task of an exported folder by PyTorch or another runtime, behind the same predictions.

Shapes: B images, H, W of the canvas.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nasmvt.data.types import ImageInfo
from nasmvt.errors import UserError
from nasmvt.export.onnx_graph import need
from nasmvt.export.tracing import StaticNetwork
from nasmvt.files import DAMAGED
from nasmvt.registry import Registry
from nasmvt.tasks.network import TaskNetwork, whole_infos

ONNX, PT2, AOTI, INT8 = "onnx", "pt2", "aoti", "int8"
"""Folders of the files of a runtime inside an exported folder."""

Program = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""Named inputs to named outputs (see `TaskNetwork.static`)."""


class OnnxProgram:
    """An ONNX file on ONNX Runtime, on the CPU.

    Args:
        path: the file.
        threads: of one operator; None: as many as there are cores.

    Raises:
        UserError: if the file is missing or damaged, a package is missing, or the runtime lacks an operator.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        need("onnxruntime")
        import onnxruntime

        _check_file(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"ONNX Runtime can't load {path} ({reason}): export again, or update onnxruntime") from None
        self._path = path
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs."""
        given = {name: tensor.contiguous().numpy() for name, tensor in inputs.items()}
        for item in self._session.get_inputs():
            fixed = [(want, got) for want, got in zip(item.shape, given[item.name].shape, strict=True) if want != got]
            if any(isinstance(want, int) for want, _ in fixed):
                height, width = item.shape[2:]
                raise UserError(
                    f"{self._path} takes images of {height} x {width} pixels, but one is placed on "
                    f"{' x '.join(map(str, given[item.name].shape[2:]))}: export with --any-size"
                )
        arrays = self._session.run(self._outputs, given)
        return {name: torch.from_numpy(array) for name, array in zip(self._outputs, arrays, strict=True)}


class _TorchProgram(ABC):
    """A program of PyTorch's in a file.

    Args:
        path: the file.
        threads: of one operator, for the whole process; None: as they are.

    Raises:
        UserError: if the file is missing or damaged, or can't be used here.
    """

    _again: ClassVar[str]
    """Where an export helps if a file can't be loaded."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        _check_file(path)
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            self._program = self._load(path)
        except DAMAGED as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path} can't be loaded ({reason}): export again {self._again}") from None

    @staticmethod
    @abstractmethod
    def _load(path: Path) -> Callable[..., dict[str, Tensor]]:
        """Return what computes."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs."""
        with torch.no_grad():
            return self._program(**inputs)


class Pt2Program(_TorchProgram):
    """A program of torch.export."""

    _again = "with this version of torch"

    @staticmethod
    def _load(path: Path) -> Callable[..., dict[str, Tensor]]:
        # What held of the traced example is no condition: for a file for any size it may refuse the canvas itself.
        module = torch.export.load(path).module
        return module(check_guards=False) if "check_guards" in signature(module).parameters else module()


class AotiProgram(_TorchProgram):
    """A program that AOTInductor compiled, for one kind of processor and version of torch."""

    _again = "on this machine"

    @staticmethod
    def _load(path: Path) -> Callable[..., dict[str, Tensor]]:
        program: Callable[..., dict[str, Tensor]] = torch._inductor.aoti_load_package(str(path))
        return program


def _check_file(path: Path) -> None:
    """Refuse a file of an exported folder that was not made; its folder is called as the option that makes it."""
    if not path.is_file():
        raise UserError(f"there is no {path}: make it with 'nasmvt export {path.parent.parent} --{path.parent.name}'")


class RuntimeNetwork(TaskNetwork):
    """A task network whose outputs another runtime computes; what comes before and after is PyTorch's.

    Args:
        network: the network.
        program: computes the outputs.
        device: where it does; None: where the images are.
    """

    def __init__(self, network: TaskNetwork, program: Program, device: str | None = "cpu") -> None:
        nn.Module.__init__(self)  # parts are the network's
        self.device = device
        self.network = network
        self.program = program
        self.classes = network.classes

    def forward(self, images: Tensor) -> Any:
        """Return the outputs of images (B, 3, H, W) that cover their canvas."""
        return self.outputs(images, whole_infos(images))

    def outputs(self, images: Tensor, infos: Sequence[ImageInfo]) -> Mapping[str, Tensor]:
        """Return what the runtime computes."""
        return self.program(self.network.static_arguments(images.to(self.device or images.device), infos))

    def read(self, outputs: Mapping[str, Tensor], infos: Sequence[ImageInfo], canvas: tuple[int, int]) -> list[Any]:
        """Turn what the runtime computed into predictions."""
        return self.network.read(outputs, infos, canvas)


RUNTIMES: Registry[Callable[[TaskNetwork, Path, str, int | None], TaskNetwork]] = Registry("runtime")
"""`open(network, folder, task, threads)`: a task of an exported folder on a runtime, by its name."""


def _torch(network: TaskNetwork, folder: Path, task: str, threads: int | None) -> TaskNetwork:
    return network


def _onnx(network: TaskNetwork, folder: Path, task: str, threads: int | None) -> TaskNetwork:
    return RuntimeNetwork(network, OnnxProgram(folder / ONNX / f"{task}.onnx", threads))


def _pt2(network: TaskNetwork, folder: Path, task: str, threads: int | None) -> TaskNetwork:
    return RuntimeNetwork(network, Pt2Program(folder / PT2 / f"{task}.pt2", threads))


def _aoti(network: TaskNetwork, folder: Path, task: str, threads: int | None) -> TaskNetwork:
    return RuntimeNetwork(network, AotiProgram(folder / AOTI / f"{task}.pt2", threads))


def _compiled(network: TaskNetwork, folder: Path, task: str, threads: int | None) -> TaskNetwork:
    compiled = torch.compile(StaticNetwork(network))
    return RuntimeNetwork(network, lambda inputs: compiled(**inputs), None)


def _int8(network: TaskNetwork, folder: Path, task: str, threads: int | None) -> TaskNetwork:
    return RuntimeNetwork(network, OnnxProgram(folder / INT8 / f"{task}.onnx", threads))


RUNTIMES.add("torch", _torch, __name__)
RUNTIMES.add("compiled", _compiled, __name__)
RUNTIMES.add("onnx", _onnx, __name__)
RUNTIMES.add("pt2", _pt2, __name__)
RUNTIMES.add("aoti", _aoti, __name__)
RUNTIMES.add("int8", _int8, __name__)
