"""What the trainings of a run have in common: loaders, evaluation, images and curves around one `Trainer`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from nasmvt.model import MultiTaskModel
from nasmvt.pipeline.datasets import TaskData
from nasmvt.pipeline.pictures import save_batches, save_predictions
from nasmvt.report.curves import plot_curves
from nasmvt.supernet import Supernet
from nasmvt.tasks.evaluate import evaluate
from nasmvt.tasks.recalibrate import recalibrate
from nasmvt.training.config import TrainingConfig
from nasmvt.training.loop import Draw, Listener, Trainer

Figures = dict[str, dict[str, dict[str, float]]]
"""Metrics by subnet, task and name, in percent."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One training of a run: the supernet's, or that of a chosen arch."""

    folder: Path
    """Where metrics, checkpoint and images go."""
    config: TrainingConfig
    seed: int
    data: Mapping[str, TaskData]
    device: torch.device
    resume: bool = False
    """Go on from the folder's checkpoint, where there is one."""
    listener: Listener | None = None

    def run(
        self,
        module: Supernet | MultiTaskModel,
        draw: Draw,
        probes: Callable[[], Mapping[str, MultiTaskModel]],
        begin: Callable[[], None],
    ) -> None:
        """Train a module.

        Args:
            module: its parameters are trained; it must be on the device.
            draw: gives arch and networks of a step.
            probes: gives the models that are evaluated on the search split, by name; the last one also predicts
                the images.
            begin: called when all that can be checked is checked, before the first file is written.

        Raises:
            UserError: if a loss is not finite.
            Interrupted: after Ctrl-C or SIGTERM, when the checkpoint is written.
        """
        search = {name: data.search_images(self.config.evaluation_images) for name, data in self.data.items()}
        plain = {name: data.recalibration_images(self.config.recalibration_images) for name, data in self.data.items()}

        def evaluate_probes(step: int) -> Figures:
            found: Figures = {}
            for probe, model in probes().items():
                found[probe] = {}
                for name, task in module.tasks.items():
                    network = model.task(name)
                    if model is not module:  # a slice of the supernet: its BatchNorm statistics are everybody's
                        recalibrate(network, plain[name], self.device)
                    found[probe][name] = evaluate(network, search[name], task, self.device)
            for name, task in module.tasks.items():
                path = self.folder / "predictions" / f"{name}.png"
                save_predictions(path, model.task(name), search[name], task, self.device)
            return found

        loaders = {name: data.train_loader() for name, data in self.data.items()}
        trainer = Trainer(
            module,
            draw,
            loaders,
            self.config,
            seed=self.seed,
            folder=self.folder,
            device=self.device,
            evaluate=evaluate_probes,
            listener=self.listener,
        )
        if self.resume:
            trainer.resume()
        begin()
        save_batches(self.folder / "batches", {name: loader.batch(0) for name, loader in loaders.items()}, module.tasks)
        try:
            trainer.run()
        finally:
            plot_curves(self.folder, {name: task.primary for name, task in module.tasks.items()})
