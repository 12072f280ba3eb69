"""An exported folder, opened on a device or on another runtime: what evaluates and predicts begins here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nasmvt.errors import UserError
from nasmvt.export import LoadedModel, load
from nasmvt.export.runtimes import AOTI, INT8, ONNX
from nasmvt.pipeline.evaluate import data_configs, data_of, evaluate_on_val
from nasmvt.pipeline.inputs import find_pictures, val_pictures
from nasmvt.pipeline.predict import predict
from nasmvt.pipeline.run import device_of
from nasmvt.precision import Precision
from nasmvt.tasks.compiled import check_compiler
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.draw import MIN_SCORE
from nasmvt.tasks.precision import parse_precision


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What was measured on val."""

    metrics: dict[str, dict[str, float]]
    """In percent, by task and name."""
    configs: Mapping[str, TaskConfig]
    """Of the data, by task."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values: split, metrics, and how test images were placed."""
        placed = {name: config.data.test.model_dump(mode="json") for name, config in self.configs.items()}
        return {"split": "val", "metrics": self.metrics, "test": placed}


@dataclass(frozen=True, kw_only=True)
class Served:
    """A loaded model where it computes."""

    loaded: LoadedModel
    device: torch.device
    precision: Precision

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        runtime: str = "torch",
        device: str = "auto",
        precision: str = "fp32",
        tasks: Sequence[str] | None = None,
    ) -> "Served":
        """Load an exported folder.

        Args:
            folder: the folder.
            runtime: what computes; one other than "torch" and "compiled" does so on the CPU.
            device: "cpu", "cuda", "cuda:1" ...; "auto": CUDA if there is any.
            precision: in which numbers networks compute: "fp32", "bf16", "fp16".
            tasks: those that the runtime is to compute; None: all.

        Raises:
            UserError: if there is no such folder, runtime or device, the runtime computes elsewhere or in other
                numbers, the device lacks the precision, or the runtime's files are missing.
        """
        anywhere = runtime in ("torch", "compiled")
        if not anywhere and not (device == "auto" or device.startswith("cpu")):
            raise UserError(f"the runtime {runtime!r} computes on the CPU, not on {device!r}: leave the device out")
        if runtime in (ONNX, INT8, AOTI) and precision != "fp32":
            raise UserError(
                f"the runtime {runtime!r} computes in the numbers of its files, not in {precision!r}: leave the "
                "precision out"
            )
        target = device_of(device if anywhere else "cpu")
        if runtime == "compiled":
            check_compiler(target, "the runtime 'compiled'")
        numbers = parse_precision(precision, target)
        return cls(loaded=load(folder, runtime, tasks=tasks).to(target), device=target, precision=numbers)

    def evaluate(self, changes: Sequence[str] = (), protocol: str | None = None) -> Evaluated:
        """Measure all tasks on val.

        Args:
            changes: of the settings of the data, such as "tasks.det.data.root=/data/coco".
            protocol: how test images are placed: "fit", "paper"; None: as the model was made.

        Raises:
            UserError: if a change breaks a rule, or data are missing or have other classes.
        """
        loaded, configs = self.loaded, data_configs(self.loaded, changes, protocol)
        data = data_of(loaded, configs)
        metrics = evaluate_on_val(loaded.model, data, self.device, self.precision, loaded.networks)
        return Evaluated(metrics=metrics, configs=configs)

    def predict(
        self,
        pictures: Sequence[Path],
        out: Path,
        *,
        tasks: Sequence[str] | None = None,
        count: int = 8,
        skip_unreadable: bool = False,
        protocol: str | None = None,
        min_score: float = MIN_SCORE,
    ) -> list[Path]:
        """Predict images and draw them (see `nasmvt.pipeline.predict`); return the paths of what was drawn.

        Args:
            pictures: images, or folders of images; none: the first `count` of each task's val.
            out: the folder for the results.
            tasks: None: all.
            count: images of each val.
            skip_unreadable: whether images that can't be read are skipped.
            protocol: how images are placed: "fit", "paper"; None: as the model was made.
            min_score: objects with a lower score are not drawn, in 0..1.

        Raises:
            UserError: if `min_score` is no score, the model has no such task or protocol, or an image can't be read.
        """
        if not 0 <= min_score <= 1:
            raise UserError(f"min_score must be a score from 0 to 1, not {min_score}: change it")
        names = [self.loaded.task(name).task.name for name in tasks or self.loaded.tasks]
        if pictures:
            chosen = dict.fromkeys(names, find_pictures(pictures, out))
        else:
            configs = data_configs(self.loaded, ())
            chosen = {name: val_pictures(configs[name], count, self.loaded.config["seed"]) for name in names}
        drawn = predict(
            self.loaded,
            chosen,
            out,
            skip_unreadable=skip_unreadable,
            precision=self.precision,
            protocol=protocol,
            min_score=min_score,
        )
        return list(drawn)
