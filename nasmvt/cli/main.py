"""The `nasmvt` command: one file per subcommand, imported without torch so that --help answers at once."""

import typer

from nasmvt.cli import compare, evaluate, export, import_reference, predict, profile, retrain, search, train_supernet

app = typer.Typer(
    name="nasmvt",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Find one vision transformer for several tasks under one size limit, and deliver it as one model.",
    epilog="The main job: nasmvt train-supernet, nasmvt search --budget 2.5M, nasmvt retrain, nasmvt export.",
)

app.command("train-supernet", short_help="Begin a run: train the supernet of an experiment.")(
    train_supernet.train_supernet
)
app.command("search", short_help="Find the best arch under a budget.")(search.search)
app.command("retrain", short_help="Train the chosen arch on.")(retrain.retrain)
app.command("export", short_help="Write the model as one folder.")(export.export)
app.command("evaluate", short_help="Measure an exported model on val.")(evaluate.evaluate)
app.command("predict", short_help="Draw predictions for images.")(predict.predict)
app.command("compare", short_help="Measure the searched arch against others.")(compare.compare)
app.command("import-reference", short_help="Merge the authors' checkpoints into one model.")(
    import_reference.import_reference
)
app.command("profile", short_help="Count parameters and work of an arch.")(profile.profile)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
