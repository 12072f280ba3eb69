"""`nasmvt compare`."""

from typing import Annotated

import typer

from nasmvt.cli.common import (
    AcceptChangedData,
    AcceptUnfinished,
    Address,
    Device,
    Json,
    RunArgument,
    put_json,
    quoted,
    refuse_ignored,
    reports_errors,
    written,
)


@reports_errors
def compare(
    run: RunArgument = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each architecture, or searches.")] = 1,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="Compare searches instead: the run's algorithm against this one (random, nsga2 ...), with equal "
            "evaluations. May be repeated.",
            show_default="none",
        ),
    ] = None,
    address: Address = None,
    accept_unfinished: AcceptUnfinished = False,
    accept_changed_data: AcceptChangedData = False,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Retrain the searched arch and others with the same settings and compare them on val.

    The others are the smallest, the largest, a random one within the budget and a random one within 5 % below it. Shows
    whether the search was worthwhile: differences have 95 % intervals, over the images of val and, with --seeds 3, over
    trainings too. Afterwards the searched arch is retrained and ready for export.

    With --against it searches anew, so many times with each algorithm, and trains what each search finds.

    \b
    Example:
      nasmvt compare runs/my-run --against random --seeds 5
    """
    from nasmvt.cli.display import (
        comparison_table,
        console,
        say,
        search_progress,
        searches_table,
        training_progress,
    )
    from nasmvt.pipeline.against import compare_searches, write_searches
    from nasmvt.pipeline.compare import compare as compare_run
    from nasmvt.pipeline.run import Run, device_of

    if against:
        refuse_ignored("with --against", {"--accept-unfinished": accept_unfinished})
    else:
        refuse_ignored("without --against", {"--address": address is not None})
    target = device_of(device)
    opened = Run.open(run)
    if against:
        searches = compare_searches(
            opened,
            device=target,
            against=against,
            seeds=seeds,
            searching=search_progress,
            training=training_progress,
            address=address,
            accept_changed_data=accept_changed_data,
        )
        console.print(searches_table(searches))
        put_json(json, [item.to_dict() for item in searches])
        written(lambda: write_searches(opened, searches), opened.searches_path)
        return
    found = compare_run(
        opened,
        device=target,
        progress=training_progress,
        seeds=seeds,
        accept_unfinished=accept_unfinished,
        accept_changed_data=accept_changed_data,
    )
    console.print(comparison_table(found))
    put_json(json, [item.to_dict() for item in found])
    over = "the images of val" + (f" and {seeds} training seeds" if seeds > 1 else ", one training seed")
    for item in found:
        if item.difference is not None and item.within_budget:
            say(f"searched against {item.name}: {item.difference.verdict} (95 % interval over {over})")
    say(f"next: nasmvt export {quoted(opened.path)}")
    written(lambda: opened.write_comparison(found), opened.comparison_path)
