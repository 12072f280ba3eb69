"""Writing the folder of a finished model: config.json, model.safetensors, README.md, and local.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from nasmvt import __version__
from nasmvt.cost import count_parameters
from nasmvt.export.card import model_card
from nasmvt.export.loading import read_config
from nasmvt.export.local import write_local
from nasmvt.export.schema import ExportConfig, ExportedTask
from nasmvt.files import atomic, new_folder, write_json, write_text
from nasmvt.model import MultiTaskModel

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
    """Write a model as a folder, atomically.

    `model.safetensors` holds every tensor once: `shared.<name>` for those shared by tasks,
    `<task>.<name>` for the others. `config.json` holds all that is needed to build the networks again (see
    `nasmvt.export.schema`). Only `local.json` records where the data are, relative to the folder, on this machine.

    Args:
        model: the model.
        folder: must not exist yet.
        metrics: metrics in percent by task, for config and card; empty if nothing was measured.
        split: what they were measured on ("search" or "val", "none" if nothing was measured).
        seed: of the run; the built-in data set depends on it.
        origin: sentences for the card on how the model was made; None: by nasmvt's own training and search.
        extra: further JSON files for the folder, by name.

    Raises:
        UserError: if the folder exists.
    """
    config = describe(model, metrics, split, seed, origin)
    roots = {name: task.config.data.root for name, task in model.tasks.items()}
    with new_folder(folder) as temporary:
        tensors = {key: tensor.cpu().contiguous() for key, tensor in model.tensors().items()}
        with atomic(temporary / "model.safetensors") as path:
            save_file(tensors, path, metadata={"format": "pt", "nasmvt": __version__})
        write_json(temporary / "config.json", config.model_dump(mode="json", exclude_none=True))
        write_text(temporary / "README.md", model_card(config))
        write_local(temporary, folder, {name: root for name, root in roots.items() if root is not None})
        for name, content in (extra or {}).items():
            write_json(temporary / name, content)


def describe(model: MultiTaskModel, metrics: Metrics, split: str, seed: int, origin: str | None = None) -> ExportConfig:
    """Return the content of config.json."""
    count = count_parameters(model.space, model.tasks, model.arch, model.sharing)
    return ExportConfig(
        nasmvt=__version__,
        seed=seed,
        space=model.space,
        arch=model.arch.to_dict(),
        sharing={layer: tuple(tasks) for layer, tasks in model.sharing.to_dict().items()},
        parameters=count.to_dict(),
        tasks={name: ExportedTask.of(task) for name, task in model.tasks.items()},
        metrics={"split": split, **{name: dict(values) for name, values in metrics.items()}},
        origin=origin,
    )


def note_int8(folder: Path, report: Mapping[str, Mapping[str, Any]]) -> None:
    """Write into config.json and the card of a folder what its quantised files lose, by task.

    Tasks that the report does not have keep what is noted of them.
    """
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["int8"] = {**content.get("int8", {}), **report}
    write_json(path, content)
    write_text(folder / "README.md", model_card(read_config(folder)))
