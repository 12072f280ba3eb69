"""`nasmvt data`."""

from pathlib import Path
from typing import Annotated

import typer

from nasmvt.cli.common import Changes, ExperimentArgument, Json, Seed, put_json, reports_errors

_SECONDS = 30.0
"""Time that looking may take."""


@reports_errors
def data(
    experiment: ExperimentArgument = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for data_report.json and batches/<task>.png, the first training batch of every task with "
            "its labels.",
            show_default="nothing is written",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Check every image and label map, not just a sample.")
    ] = False,
    changes: Changes = None,
    seed: Seed = None,
    json: Json = None,
) -> None:
    """Report the contents of an experiment's data; fails where training would.

    \b
    Example:
      nasmvt data mine.yaml --out look
    """
    from nasmvt.cli.data_display import data_table
    from nasmvt.cli.display import console, say
    from nasmvt.data.survey import MOST
    from nasmvt.files import write_json
    from nasmvt.pipeline.data_report import check_report, report_data
    from nasmvt.pipeline.datasets import infos_of, open_data
    from nasmvt.pipeline.experiment import load_experiment
    from nasmvt.pipeline.pictures import save_batch
    from nasmvt.pipeline.run import make_tasks

    settings = load_experiment(experiment, changes or (), seed)
    opened = open_data(settings)
    report = report_data(opened, most=None if everything else MOST, seconds=None if everything else _SECONDS)
    for name, found in report.items():
        console.print(data_table(name, found))
        for warning in found.warnings():
            say(f"warning: {name}, {warning}")
    put_json(json, {name: found.to_json() for name, found in report.items()})
    if out is not None:
        write_json(out / "data_report.json", {name: found.to_json() for name, found in report.items()})
        for name, task in make_tasks(settings, infos_of(opened)).items():
            save_batch(out / "batches" / f"{name}.png", opened[name].first_batch, task)
        say(f"written: {out}")
    check_report(report)
