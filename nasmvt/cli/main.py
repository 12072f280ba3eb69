"""The `nasmvt` command: one file per subcommand, imported without torch so that --help responds immediately."""

import sys
from typing import Annotated

import typer

from nasmvt import __version__
from nasmvt.cli import (
    add_task,
    benchmark,
    compare,
    data,
    draft_space,
    evaluate,
    export,
    front,
    import_reference,
    measure_latency,
    predict,
    profile,
    report,
    retrain,
    runs,
    search,
    train_supernet,
)
from nasmvt.cli.streams import loss, open_streams

app = typer.Typer(
    name="nasmvt",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Find one vision transformer for several tasks within one size limit, and export it as one model.",
    epilog="The usual workflow: nasmvt train-supernet, nasmvt search --budget 2.5M, nasmvt retrain, nasmvt export.",
)

app.command("data", short_help="Report the contents of an experiment's data.")(data.data)
app.command("train-supernet", short_help="Start a run: train the supernet of an experiment.")(
    train_supernet.train_supernet
)
app.command("search", short_help="Find the best arch under a budget.")(search.search)
app.command("front", short_help="Show the best candidates of every size, and pick one.")(front.front)
app.command("retrain", short_help="Train the chosen arch further.")(retrain.retrain)
app.command("export", short_help="Export the model as one folder.")(export.export)
app.command("evaluate", short_help="Evaluate an exported model on val.")(evaluate.evaluate)
app.command("benchmark", short_help="Measure the speed of an exported model.")(benchmark.benchmark)
app.command("measure-latency", short_help="Measure how fast the networks of a space are on a device.")(
    measure_latency.measure_latency
)
app.command("predict", short_help="Predict for images, and draw the predictions.")(predict.predict)
app.command("compare", short_help="Compare the searched arch with others.")(compare.compare)
app.command("add-task", short_help="Add a task to an exported model.")(add_task.add_task)
app.command("draft-space", short_help="Draft the search space of a network of timm.")(draft_space.draft_space)
app.command("report", short_help="Write one HTML page about a run.")(report.report)
app.command("runs", short_help="List the runs.")(runs.runs)
app.command("import-reference", short_help="Merge the authors' checkpoints into one model.")(
    import_reference.import_reference
)
app.command("profile", short_help="Count parameters and multiply-accumulates of an arch.")(profile.profile)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nasmvt {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options that come before a command."""


def main() -> None:
    """Run the command line."""
    output = open_streams()
    try:
        app()
    except SystemExit:
        if sentence := loss(output):
            typer.echo(f"error: {sentence}", err=True)
            sys.exit(2)
        raise


if __name__ == "__main__":
    main()
