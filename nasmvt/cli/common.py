"""Shared by the commands: options, error handling, the console."""

import functools
import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from nasmvt.errors import UserError, listed, os_refusal

# Threads that spin while they wait stall a busy machine, and threads that sleep immediately are slow on small
# networks: spin briefly, then sleep. GNU OpenMP reads this when torch loads.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# A notebook passes on the name of its own backend, without which matplotlib can't even be imported elsewhere. The
# command line draws into files only.
os.environ["MPLBACKEND"] = "agg"

F = TypeVar("F", bound=Callable[..., Any])

ExperimentArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="EXPERIMENT",
        help="Experiment file, or the name of a shipped one.",
        show_default="shapes, the built-in data set",
    ),
]
RunArgument = Annotated[
    Path | None, typer.Argument(metavar="RUN", help="Run directory.", show_default="the newest under runs/")
]
ModelArgument = Annotated[
    Path | None,
    typer.Argument(metavar="FOLDER", help="Exported folder.", show_default="the one of the newest run under runs/"),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...; auto uses CUDA if available.")]
Precision = Annotated[
    str, typer.Option(help="In which numbers networks compute: fp32, or bf16 or fp16 where the device has them.")
]
Protocol = Annotated[
    str | None,
    typer.Option(
        help="How test images are placed: fit (one canvas), paper (as published figures were measured).",
        show_default="as the model was made",
    ),
]
Runtime = Annotated[
    str,
    typer.Option(
        help="What computes: torch, compiled (torch.compile), or files of 'nasmvt export' on the CPU: onnx, int8, pt2, "
        "aoti."
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: training.steps=100. May be repeated."),
]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.", show_default="the experiment's")]
AcceptChangedData = Annotated[
    bool,
    typer.Option(
        "--accept-changed-data",
        help="Go on if the data are not those that the run began with: they are then divided into training and search "
        "images anew, and figures of before do not compare.",
    ),
]
Json = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write what the tables show as JSON; -: print only the JSON."),
]
AcceptUnfinished = Annotated[
    bool, typer.Option("--accept-unfinished", help="Take what an interrupted search has found so far.")
]
TasksOf = Annotated[
    str | None,
    typer.Option(
        "--experiment",
        help="Experiment that gives a space its tasks; its data need not exist.",
        show_default="vit_mvt",
    ),
]
ClassCounts = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TASK=N",
        help="Classes of a task of that experiment. May be repeated.",
        show_default="1000 classification, 80 detection, 150 segmentation",
    ),
]
TrainingWorkers = Annotated[
    int, typer.Option("--workers", min=0, help="Ray workers that train together; 0: this process, or torchrun's.")
]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster to use.", show_default="a local Ray, started and stopped automatically"),
]
LeastWorkers = Annotated[
    int | None,
    typer.Option("--min-workers", help="Go on with so few when others are lost.", show_default="all are needed"),
]


def reports_errors(command: F) -> F:
    """Report what a user can fix as a one-line error, with exit code 2 and without a traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        warnings.filterwarnings("ignore", module=r"(torch|torchvision|timm|ray)\b")
        from nasmvt.training.interrupt import Failed, Interrupted, interrupting
        from nasmvt.training.processes import started_together

        def go_on(checkpoint: Path) -> str:
            how = f"pass {_RESUME[command.__name__]}" if command.__name__ in _RESUME else "run the same command again"
            return f"to go on, {how.format(run=quoted(checkpoint.parent.parent))}"

        try:
            with interrupting(), _silenced(kwargs.get("json") == "-"):
                if started_together() and command.__name__ not in _RESUME:
                    raise UserError("torchrun starts train-supernet and retrain; run other commands without it")
                return command(*args, **kwargs)
        except Failed as error:
            _fail(f"error: {error}; {go_on(error.checkpoint)}")
        except UserError as error:
            _fail(f"error: {error}")
        except Interrupted as event:
            _fail(f"interrupted after step {event.step}: {event.checkpoint} is written; {go_on(event.checkpoint)}")
        except KeyboardInterrupt:
            _fail("interrupted: what was finished is kept; run the same command again to go on")
        except typer.Exit:
            raise
        except Exception as error:  # whatever a library wraps a refusal of the operating system in
            sentence = os_refusal(error)
            if sentence is None:
                raise
            _fail(f"error: {' '.join(sentence.split())}")

    return run  # type: ignore[return-value]


_RESUME = {"train_supernet": "--resume --out {run} alone", "retrain": "--resume as well"}
"""How to resume an interrupted command, where running it again is not enough."""


def _silenced(wanted: bool) -> AbstractContextManager[None]:
    """Return what keeps tables and progress from stdout, where a command prints JSON alone."""
    if not wanted:
        return nullcontext()
    from nasmvt.cli.display import quiet

    return quiet()


def put_json(where: str | None, value: Any) -> None:
    """Write plain values where `--json` says: to a file, to stdout ("-"), or nowhere."""
    from nasmvt.files import write_json

    if where == "-":
        typer.echo(json.dumps(value, indent=2))
    elif where is not None:
        written(lambda: write_json(Path(where), value), Path(where), wanted=True)


def refuse_ignored(why: str, given: Mapping[str, object]) -> None:
    """Refuse options that were given, but would do nothing on account of another one.

    Args:
        why: what the other one is: "without --watch".
        given: options, and what was given: nothing where it is false.

    Raises:
        UserError: naming them.
    """
    named = [option for option, value in given.items() if value]
    if named:
        do, them = ("does", "it") if len(named) == 1 else ("do", "them")
        raise UserError(f"{listed(named)} {do} nothing {why}: leave {them} out")


def quoted(path: Path) -> str:
    """Return a path quoted for a shell."""
    return shlex.quote(str(path))


def _fail(sentence: str) -> None:
    rank = os.environ.get("RANK", "0")
    if rank != "0":  # of several processes, each says what stopped it
        sentence = f"process {rank}: {sentence}"
    sys.stdout.flush()
    typer.echo(sentence, err=True)
    raise typer.Exit(2)


def model_folder(folder: Path | None) -> Path:
    """Return the exported folder: the one given, or the one of the newest run."""
    if folder is not None:
        return folder
    from nasmvt.pipeline.run import Run

    run = Run.open(None)
    exported = run.folder("export")
    if not exported.is_dir():
        raise UserError(f"{run.path} has no exported model: run 'nasmvt export' first, or give a folder")
    return exported


def written(write: Callable[[], object], path: Path, *, wanted: bool = False) -> None:
    """Write a file and say so; where the disk refuses it, say that: what was found is on the screen already.

    Args:
        write: writes it.
        path: the file.
        wanted: whether the user asked for this file; it is then an error if it can't be written.
    """
    from nasmvt.cli.display import say

    try:
        write()
    except OSError as error:
        if wanted:
            raise
        typer.echo(f"not written: {os_refusal(error)}", err=True)
    else:
        say(f"written: {path}")
