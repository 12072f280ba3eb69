"""`nasmvt measure-latency`."""

from pathlib import Path
from typing import Annotated

import typer

from nasmvt.cli.common import (
    Changes,
    ClassCounts,
    Device,
    Json,
    TasksOf,
    put_json,
    quoted,
    refuse_ignored,
    reports_errors,
)


@reports_errors
def measure_latency(
    subject: Annotated[
        str, typer.Argument(metavar="SPACE|RUN", help="Name or file of a search space, or a run directory.")
    ],
    task: Annotated[
        list[str] | None, typer.Option(help="Task to measure; may be repeated.", show_default="all tasks")
    ] = None,
    runtime: Annotated[
        str,
        typer.Option(help="torch: the plain networks in PyTorch; onnx: their files in ONNX Runtime (slow to make)."),
    ] = "torch",
    device: Device = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Threads of an operator.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Images of a call.")] = 1,
    precision: Annotated[str, typer.Option(help="In which numbers PyTorch computes: fp32, bf16 or fp16.")] = "fp32",
    archs: Annotated[int, typer.Option(min=8, help="Archs that the tables are fitted on.")] = 64,
    held_out: Annotated[int, typer.Option(min=2, help="Further archs, drawn at random, that judge the tables.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="How often each arch is visited; more on a busy machine.")] = 6,
    out: Annotated[
        Path | None, typer.Option(help="File of the table.", show_default="RUN/latency.json, or SPACE-latency.json")
    ] = None,
    kit: Annotated[
        Path | None,
        typer.Option(help="Don't measure: write a folder of ONNX files, and a program that measures them elsewhere."),
    ] = None,
    times: Annotated[
        Path | None, typer.Option(help="Don't measure: make the table from the times.json that a kit's program wrote.")
    ] = None,
    experiment: TasksOf = None,
    classes: ClassCounts = None,
    changes: Changes = None,
    json: Json = None,
) -> None:
    """Measure how long the networks of a space take on a device: a table for 'nasmvt search --max-latency'.

    \b
    Example:
      nasmvt measure-latency runs/my-run --task det --threads 1
    """
    from nasmvt.cli.display import console, latency_table, say
    from nasmvt.errors import UserError, check_task
    from nasmvt.pipeline.latency import Effort, Networks, measure_table, read_times, setting_here, write_kit
    from nasmvt.pipeline.profile_subject import find_subject
    from nasmvt.pipeline.run import Run, device_of

    computed = {
        "--runtime": runtime != "torch",
        "--device": device != "cpu",
        "--precision": precision != "fp32",
    }
    design = {
        "--archs": archs != Effort.archs,
        "--held-out": held_out != Effort.held_out,
        "--rounds": rounds != Effort.rounds,
    }
    if kit is not None:
        refuse_ignored("with --kit", {**computed, "--times": times, "--out": out, "--json": json})
    elif times is not None:
        calls = {"--task": task, "--threads": threads != 1, "--batch": batch != 1}
        refuse_ignored("with --times, which has been measured", {**calls, **computed, **design})
    found = find_subject(subject, None, experiment=experiment, classes=classes or (), changes=changes or ())
    if found.kind == "export":
        raise UserError(f"{subject} is an exported model, which holds one arch: use 'nasmvt benchmark {subject}'")
    chosen = task or list(found.tasks)
    for name in chosen:
        check_task("--task", name, found.tasks)
    networks = Networks(found.space, found.tasks, Path(subject) if found.kind == "run" else None)
    effort = Effort(archs=archs, held_out=held_out, rounds=rounds)
    if kit is not None:
        write_kit(networks, chosen, batch, effort, kit)
        say(f"written: {kit}  (next: there, 'python measure_latency.py {threads}'; then here, with its times.json:")
        say(f"  nasmvt measure-latency {subject} --times {quoted(kit / 'times.json')} --out table.json)")
        return
    if times is not None:
        table = read_times(times, found.space, found.tasks)
    else:
        setting = setting_here(
            runtime=runtime, device=device_of(device), threads=threads, batch=batch, precision=precision
        )
        say(f"latency: {setting}")
        table = measure_table(
            networks, chosen, setting, effort, lambda name, count: say(f"timing {count} networks of {name}")
        )
    path = out or (Run.open(networks.run).latency_path if networks.run else Path(f"{found.space.name}-latency.json"))
    table.write(path)
    console.print(latency_table(table))
    put_json(json, table.model_dump(mode="json"))
    say(f"written: {path}")
