"""The steps on a finished model: export, evaluation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nasmvt.api.run import AnyRun, as_texts, open_run
from nasmvt.export import load
from nasmvt.pipeline.evaluate import data_configs, data_of, evaluate_on_val
from nasmvt.pipeline.export import export as export_run
from nasmvt.pipeline.run import device_of


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
) -> dict[str, dict[str, float]]:
    """Return the metrics of an exported model on the val splits of its data, in percent, by task and name.

    Args:
        folder: the exported folder.
        changes: settings of the data by dotted key, such as `{"tasks.det.data.root": "/data/coco"}`.
        protocol: how test images are placed: "fit", "paper"; None: as the model was made.
        device: "cpu", "cuda", "cuda:1" ...; "auto": CUDA if there is any.

    Raises:
        UserError: if the folder is not an exported model, or data are missing or have other classes.
    """
    loaded = load(Path(folder))
    configs = data_configs(loaded, as_texts(changes), protocol)
    return evaluate_on_val(loaded.model, data_of(loaded, configs), device_of(device))
