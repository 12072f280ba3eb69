"""From an exported folder to modules that any PyTorch program can use."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nasmvt.config import parse
from nasmvt.data import EvalTransform, read_picture
from nasmvt.errors import UserError, listed, nearest
from nasmvt.export.local import read_local
from nasmvt.export.older_formats import upgraded
from nasmvt.export.runtimes import RUNTIMES
from nasmvt.export.schema import FORMAT, ExportConfig, Roots
from nasmvt.families import family
from nasmvt.model import MultiTaskModel
from nasmvt.model.multi_task import stored_key
from nasmvt.precision import Precision
from nasmvt.space import Sharing
from nasmvt.tasks.build import Slot
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.precision import autocast
from nasmvt.tasks.task import Task


class TaskModel(nn.Module):
    """One task of a loaded model, with its pre- and postprocessing.

    `forward` takes images as the network does; `predict` takes images of any size.
    """

    def __init__(self, network: TaskNetwork, task: Task) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.classes = self.task.info.classes
        self.preprocess = EvalTransform(self.task.config.data)

    def forward(self, images: Tensor) -> Any:
        """Turn images (B, 3, H, W), uint8 in 0..255 or float in 0..1, into the head's raw outputs."""
        return self.network(images)

    def predict(
        self, pictures: Iterable[str | Path | Image.Image | Tensor | Any], precision: Precision = "fp32"
    ) -> list[Any]:
        """Predict for images, in the pixels of each image.

        Args:
            pictures: paths, PIL images, arrays (H, W, 3) uint8 or tensors (3, H, W) uint8, of any size. Files are
                read as in training: upright by their EXIF orientation. Opened images are used as they are.
            precision: in which numbers the network computes.

        Returns:
            One prediction per image: `ClassificationPrediction`, `DetectionPrediction` or
            `SegmentationPrediction`, each with `to_json()`.

        Raises:
            UserError: if a file can't be read as an image.
        """
        device = next(self.network.parameters()).device
        predictions, predictor = [], self.task.predictor(self.network)
        for number, picture in enumerate(pictures):
            opened = read_picture(Path(picture)) if isinstance(picture, (str, Path)) else picture
            images, infos = self.preprocess.views(opened, number)
            with autocast(precision, device):
                predictions.extend(predictor.predict(images.to(device), infos))
        return predictions


class LoadedModel:
    """A finished model: the networks of all tasks, with shared tensors held once."""

    def __init__(
        self,
        model: MultiTaskModel,
        config: dict[str, Any],
        roots: Roots | None = None,
        served: Mapping[str, TaskNetwork] | None = None,
    ) -> None:
        self.model = model
        self.config = config
        """The content of config.json, in the current format (see `nasmvt.export.schema`)."""
        self.networks = {name: model.task(name) for name in model.tasks} | dict(served or {})
        """The network of each task, or what computes it on another runtime."""
        self.roots = dict(roots or {})
        """Where the data of tasks are, as far as the folder records it."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self.model.tasks)

    def task(self, name: str) -> TaskModel:
        """Return one task as an ordinary module, in evaluation mode.

        Raises:
            UserError: if the model has no such task.
        """
        if name not in self.model.tasks:
            raise UserError(f"the model has no task {name!r}{nearest(name, self.tasks)} (tasks: {listed(self.tasks)})")
        return TaskModel(self.networks[name], self.model.tasks[name]).eval()

    def to(self, device: torch.device | str) -> "LoadedModel":
        """Move all tensors to a device; return self."""
        self.model.to(device)
        return self


def read_config(folder: Path) -> ExportConfig:
    """Read config.json of an exported folder; no tensor is read.

    Raises:
        UserError: if the folder is not an exported model, has another format, or its config breaks a rule.
    """
    return _read(folder)[0]


def load(
    folder: str | Path, runtime: str = "torch", *, tasks: Sequence[str] | None = None, threads: int | None = None
) -> LoadedModel:
    """Load an exported folder.

    Args:
        folder: the folder.
        runtime: what computes (see `nasmvt.export.runtimes.RUNTIMES`); one other than "torch" needs its files in the
            folder and computes on the CPU.
        tasks: which tasks the runtime is to compute; None: all. The others stay with PyTorch.
        threads: of such a runtime; None: its default.

    Raises:
        UserError: if the folder is not an exported model, has another format, its tensors do not fit its config, or
            the runtime's files or packages are missing.
    """
    folder, opener = Path(folder), RUNTIMES.get(runtime)
    content, config, roots = _read(folder)
    family(content.space.family).check(content.space)
    space, sharing = content.space, Sharing.of(content.sharing)
    described = content.make_tasks(str(folder / "config.json"))
    arch = space.arch(content.arch, str(folder / "config.json"))
    tensors = _read_tensors(folder / "model.safetensors")
    unused = set(tensors)

    def stored(task: str, slot: Slot, shared: bool) -> Tensor:
        key = stored_key(task, slot.name, shared)
        tensor = tensors.get(key)
        if tensor is None or tensor.shape != slot.shape:
            found = "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
            raise UserError(
                f"{folder}: the tensor {key} must have shape {tuple(slot.shape)}, but is {found}: export again"
            )
        unused.discard(key)
        return tensor

    model = MultiTaskModel.assemble(space, described, arch, sharing, stored)
    if unused:
        raise UserError(
            f"{folder}: model.safetensors holds tensors that the config does not know: {listed(sorted(unused)[:5])}"
        )
    model.eval()
    chosen = [name for name in model.tasks if tasks is None or name in tasks]
    return LoadedModel(model, config, roots, {name: opener(model.task(name), folder, name, threads) for name in chosen})


def _read(folder: Path) -> tuple[ExportConfig, dict[str, Any], dict[str, Path]]:
    """Return config.json, checked and as plain values, and where the data are."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{folder} is not an exported model (it has no config.json): make one with 'nasmvt export'"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}): export the model again") from None
    roots = read_local(folder)
    if isinstance(config, dict):
        config, named = upgraded(config, str(path))
        roots = {**named, **roots}
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise UserError(
            f"{path} must be of format 1 to {FORMAT}, but is not: export the model again with this version of nasmvt"
        )
    return parse(ExportConfig, config, str(path)), config, roots


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} can't be read ({error}): export the model again") from None
    return tensors
