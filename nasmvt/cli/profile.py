"""`nasmvt profile`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from nasmvt.cli.common import Changes, ClassCounts, Device, Json, TasksOf, put_json, refuse_ignored, reports_errors


@reports_errors
def profile(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="SPACE|RUN|EXPORT", help="Name or file of a search space, a run directory, or an exported folder."
        ),
    ],
    arch: Annotated[
        str | None,
        typer.Option(
            help="A named arch of the space, smallest, largest, best (of a run), or a YAML file.",
            show_default="published or largest; of a run best; of an export its own",
        ),
    ] = None,
    sharing: Annotated[
        Literal["all", "none", "learned"] | None,
        typer.Option(
            help="Layers that the tasks share: all that can be, none of the adaptive ones, or as a run's scores say.",
            show_default="all of these",
        ),
    ] = None,
    latency: Annotated[
        bool, typer.Option("--latency", help="Also measure milliseconds per image, with real networks.")
    ] = False,
    latency_table: Annotated[
        Path | None,
        typer.Option(help="Show the milliseconds of a call that a table of 'nasmvt measure-latency' gives instead."),
    ] = None,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory",
            help="Instead: what a step of the supernet's training takes in memory, measured on the CPU with the first "
            "images of the experiment's data. Of a space with --experiment, or of a run.",
        ),
    ] = False,
    device: Device = "auto",
    json: Json = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            help="Count differently: the name of a shipped pattern (as in the authors' code), or a YAML file.",
            show_default="as nasmvt keeps the parameters",
        ),
    ] = None,
    experiment: TasksOf = None,
    classes: ClassCounts = None,
    changes: Changes = None,
) -> None:
    """Count parameters and multiply-accumulates of an arch with all its tasks; no weights are needed.

    \b
    Example:
      nasmvt profile vit_mvt_small --arch published
    """
    from nasmvt.cli.display import console, say
    from nasmvt.errors import UserError

    if memory:
        from nasmvt.cli.profile_display import memory_table
        from nasmvt.pipeline.memory import step_memory
        from nasmvt.pipeline.profile_subject import find_experiment

        if arch or sharing or latency or latency_table or pattern or classes:
            raise UserError(
                "--memory measures the largest arch with the data of an experiment: leave --arch, --sharing, "
                "--latency, --latency-table, --pattern and --classes out"
            )
        refuse_ignored("with --memory, which measures on the CPU", {"--device": device not in ("auto", "cpu")})
        measured = step_memory(find_experiment(subject, experiment=experiment, changes=changes or ()))
        console.print(memory_table(measured))
        put_json(json, measured.to_dict())
        return
    from nasmvt.cli.profile_display import profile_tables
    from nasmvt.cost import LatencyTable
    from nasmvt.pipeline.profile import profile as count
    from nasmvt.pipeline.profile_subject import find_subject
    from nasmvt.pipeline.run import device_of
    from nasmvt.space.pattern import load_pattern

    if latency and latency_table is not None:
        raise UserError("--latency measures, and --latency-table reads what was measured: give one of them")
    if not latency:
        refuse_ignored("without --latency", {"--device": device not in ("auto", "cpu")})
    target = device_of(device) if latency else None
    rules = None if pattern is None else load_pattern(pattern)
    found = find_subject(subject, arch, experiment=experiment, classes=classes or (), changes=changes or ())
    times = None
    if latency_table is not None:
        times = LatencyTable.read(latency_table)
        times.check(found.space, found.tasks, [name for name in times.tasks if name in found.tasks], latency_table)
    result = count(found, sharing=sharing, pattern=rules, device=target, table=times)
    counted = "" if rules is None else f", counted by the pattern {rules.name}"
    say(f"{found.kind} {found.source}, arch {found.arch_name}{counted}: {found.arch}")
    for table in profile_tables(result):
        console.print(table)
    put_json(json, result.to_dict())
