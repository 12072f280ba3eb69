"""`nasmvt compare`."""

from nasmvt.cli.common import AcceptChangedData, AcceptUnfinished, Device, RunArgument, quoted, reports_errors, written


@reports_errors
def compare(
    run: RunArgument = None,
    accept_unfinished: AcceptUnfinished = False,
    accept_changed_data: AcceptChangedData = False,
    device: Device = "auto",
) -> None:
    """Retrain the smallest, the largest, a random and the searched arch with the same settings and compare them on val.

    Shows whether the search was worthwhile. Afterwards the searched arch is retrained and ready for export.

    \b
    Example:
      nasmvt compare runs/my-run
    """
    from nasmvt.cli.display import comparison_table, console, say, training_progress
    from nasmvt.pipeline.compare import compare as begin
    from nasmvt.pipeline.run import Run, device_of

    target = device_of(device)
    opened = Run.open(run)
    found = begin(
        opened,
        device=target,
        progress=training_progress,
        accept_unfinished=accept_unfinished,
        accept_changed_data=accept_changed_data,
    )
    console.print(comparison_table(found))
    within = [item for item in found if item.within_budget]
    best = max(within, key=lambda item: item.score)
    verdict = "is the best" if best.name == "best" else f"is beaten by {best.name}"
    say(f"of the archs within the budget the searched one {verdict}  (next: nasmvt export {quoted(opened.path)})")
    written(lambda: opened.write_comparison(found), opened.comparison_path)
