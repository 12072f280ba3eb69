"""`nasmvt report`."""

from typing import Annotated

import typer

from nasmvt.cli.common import RunArgument, refuse_ignored, reports_errors

_EVERY = 30
"""Seconds between two writes, where nothing else is said."""


@reports_errors
def report(
    run: RunArgument = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write it again and again while the run goes on, until Ctrl-C.")
    ] = False,
    every: Annotated[int, typer.Option(min=1, help="Seconds between two writes with --watch.")] = _EVERY,
) -> None:
    """Write RUN/report.html: data, curves, search, the searched network, images, timings, in one file.

    It opens in any browser, without a network, and can be written while the run goes on.

    \b
    Example:
      nasmvt report runs/my-run
    """
    import time

    from nasmvt.cli.display import say
    from nasmvt.pipeline.report import Report
    from nasmvt.pipeline.run import Run

    if not watch:
        refuse_ignored("without --watch", {"--every": every != _EVERY})
    opened = Run.open(run)
    try:
        while watch:
            Report(opened).write(refresh=every)
            say(f"written: {opened.report_path}  (again in {every} s; Ctrl-C ends)")
            time.sleep(every)
            opened = Run.open(opened.path)
    except KeyboardInterrupt:
        pass  # how watching ends; the page is written once more, so that it no longer reloads itself
    Report(opened).write()
    size = opened.report_path.stat().st_size / 1e6
    say(f"written: {opened.report_path}  ({size:.1f} MB)")
