"""`nasmvt search`."""

from pathlib import Path
from typing import Annotated

import typer

from nasmvt.cli.common import AcceptChangedData, Address, Device, Json, RunArgument, put_json, quoted, reports_errors


@reports_errors
def search(
    run: RunArgument = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Upper bound on the total parameters, heads included: 135M, 86_300_000, or 60% of the largest "
            "network's; or a range: 20M..25M.",
            show_default="no bound",
        ),
    ] = None,
    at_least: Annotated[
        str | None, typer.Option(help="Lower bound on the total parameters: 20M, 30%.", show_default="no bound")
    ] = None,
    max_gmacs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK=NUMBER",
            help="Upper bound on a task's multiply-accumulates per image, in 10^9: det=400, or det=60% of the largest "
            "network's. May be repeated.",
            show_default="no bound",
        ),
    ] = None,
    max_latency: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK=TIME",
            help="Upper bound on the time of a call of a task's network: det=25ms, det=800us, or det=60% of the "
            "largest network's. May be repeated.",
            show_default="no bound",
        ),
    ] = None,
    latency: Annotated[
        Path | None,
        typer.Option(
            help="Latency table, made by 'nasmvt measure-latency' here or elsewhere.",
            show_default="RUN/latency.json, measured where it is missing",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads whose latency counts.", show_default="the table's, or 1")
    ] = None,
    sharing: Annotated[
        str, typer.Option(help="Which adaptive layers are shared: learned (by their scores), all or none.")
    ] = "learned",
    workers: Annotated[
        str | None,
        typer.Option(
            help="Ray workers; 0: in this process, without Ray. 2..8: as few and as many, as nodes come and go.",
            show_default="the experiment's",
        ),
    ] = None,
    address: Address = None,
    algorithm: Annotated[
        str | None,
        typer.Option(
            help="predictor, evolution, nsga2 (for several objectives), random, or module:name for your own.",
            show_default="the experiment's",
        ),
    ] = None,
    maximize: Annotated[
        list[str] | None,
        typer.Option(
            help="t-score, a task, for its first metric, or TASK:METRIC. May be repeated.",
            show_default="the experiment's",
        ),
    ] = None,
    minimize: Annotated[
        list[str] | None,
        typer.Option(help="parameters, gmacs:TASK or latency:TASK. May be repeated.", show_default="the experiment's"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the search.", show_default="the run's")] = None,
    race: Annotated[
        bool | None,
        typer.Option(
            "--race/--no-race",
            help="Compare on parts of the images first, and drop the hopeless.",
            show_default="the experiment's",
        ),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Folder of another search of this supernet, to begin with what it found.", show_default="none"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the search.", show_default="RUN/search")] = None,
    accept_changed_data: AcceptChangedData = False,
    device: Device = "auto",
    precision: Annotated[
        str | None,
        typer.Option(help="In which numbers candidates compute: fp32, bf16 or fp16.", show_default="the experiment's"),
    ] = None,
    json: Json = None,
) -> None:
    """Search the supernet for the arch with the highest T-score under a budget.

    To resume an interrupted search, run the same command again.

    \b
    Example:
      nasmvt search runs/my-run --budget 2.5M --workers 4
    """
    from nasmvt.cli.display import console, parameters_table, say, search_progress
    from nasmvt.cost import Budget
    from nasmvt.errors import listed
    from nasmvt.pipeline.run import Run
    from nasmvt.pipeline.search import Searching
    from nasmvt.search import Journal
    from nasmvt.search.workers import parse_workers

    work = Searching.of(
        Run.open(run),
        Budget.parse(budget, at_least, max_gmacs or (), max_latency or (), sharing),
        device=device,
        table=latency,
        threads=threads,
        out=out,
        on_task=lambda name, archs: say(f"timing {archs} networks of {name}"),
        workers=parse_workers(workers),
        algorithm=algorithm,
        maximize=maximize or None,
        minimize=minimize or None,
        precision=precision,
        race=race,
    )
    if work.costs.timing is not None:
        say(f"latency: {work.costs.timing.setting}")
    with console.status("counting what architectures cost"):
        sentences = work.budget.describe(work.feasible)
    for sentence in sentences:
        say(sentence)
    with search_progress() as listener:
        ranked = work.search(
            address=address, seed=seed, listener=listener, accept_changed_data=accept_changed_data, init=init
        )
    best = ranked[0]
    console.print(parameters_table(best.parameters.to_dict()))
    put_json(json, [candidate.to_dict() for candidate in ranked])
    say(f"best of {len(ranked)} candidates: T-score {best.score:.2f}, {best.arch}")
    for name, time in best.latency.items():
        measured = f", {best.timed[name] / 1e3:.2f} ms measured" if name in best.timed else ""
        say(f"{name}: {time / 1e3:.2f} ms by the table{measured}")
    path, files = work.run.path, work.files
    if noted := Journal(files.journal).notes("correlation"):
        figures = listed(f"{value:.2f}" for value in noted.values())
        say(f"rank correlation of the surrogate's predictions with what was found, by generation: {figures}")
    arch = "" if out is None else f" --arch {quoted(files.best)}"
    if len(work.objectives.names) > 1:
        where = "" if out is None else f" --search {quoted(out)}"
        say(f"front: {files.front_plot}  (choose from it: nasmvt front {quoted(path)}{where} --pick ...)")
    say(f"written: {files.folder}  (next: nasmvt retrain {quoted(path)}{arch})")
