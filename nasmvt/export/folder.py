"""Writing the folder of a finished model: config.json, model.safetensors, README.md."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from nasmvt import __version__
from nasmvt.cost import count_parameters
from nasmvt.errors import UserError
from nasmvt.export.card import model_card
from nasmvt.files import write_json, write_text
from nasmvt.model import MultiTaskModel

FORMAT = 1

Metrics = Mapping[str, Mapping[str, float]]


def save(
    model: MultiTaskModel,
    folder: Path,
    *,
    metrics: Metrics,
    split: str,
    seed: int,
    origin: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a model as a folder; it appears whole or not at all.

    `model.safetensors` holds every tensor once: `shared.<name>` for those that tasks have in common,
    `<task>.<name>` for the others. `config.json` holds all that is needed to build the networks again:
    space, arch, sharing, tasks with their classes and preprocessing, and the metrics.

    Args:
        model: the model.
        folder: must not exist yet.
        metrics: figures in percent by task, for config and card; empty if nothing was measured.
        split: what they were measured on ("search" or "val", "none" if nothing was measured).
        seed: of the run; the built-in data set is a function of it.
        origin: sentences for the card on how the model was made; None: by nasmvt's own training and search.
        extra: further JSON files for the folder, by name.

    Raises:
        UserError: if the folder exists.
    """
    if folder.exists():
        raise UserError(f"{folder} exists: give another --out, or delete it")
    config = describe(model, metrics, split, seed)
    if origin is not None:
        config["origin"] = origin
    temporary = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        tensors = {key: tensor.cpu().contiguous() for key, tensor in model.tensors().items()}
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt", "nasmvt": __version__})
        write_json(temporary / "config.json", config)
        write_text(temporary / "README.md", model_card(config))
        for name, content in (extra or {}).items():
            write_json(temporary / name, content)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def describe(model: MultiTaskModel, metrics: Metrics, split: str, seed: int) -> dict[str, Any]:
    """Return the content of config.json."""
    count = count_parameters(model.space, model.tasks, model.arch, model.sharing)
    return {
        "format": FORMAT,
        "nasmvt": __version__,
        "seed": seed,
        "space": model.space.model_dump(mode="json"),
        "arch": model.arch.to_dict(),
        "sharing": model.sharing.to_dict(),
        "parameters": count.to_dict(),
        "tasks": {
            name: {"config": task.config.model_dump(mode="json"), "data": vars(task.info)}
            for name, task in model.tasks.items()
        },
        "preprocessing": {
            name: {
                "resize": "to fit the canvas, aspect kept, bilinear, antialiased; top left, rest in the mean colour",
                "canvas": list(task.config.data.image_size),
                "scale": "1/255",
                "mean": list(task.config.data.mean),
                "std": list(task.config.data.std),
            }
            for name, task in model.tasks.items()
        },
        "metrics": {"split": split, **{name: dict(values) for name, values in metrics.items()}},
    }
