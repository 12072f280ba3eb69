"""The tables of `nasmvt profile`."""

from collections.abc import Iterator

from rich.table import Table

from nasmvt.cli.tables import new_table
from nasmvt.pipeline.memory import StepMemory
from nasmvt.pipeline.profile import Profile

_COLUMNS = {"learned": "as learned", "all": "all shared", "none": "none shared"}


def profile_tables(profile: Profile) -> Iterator[Table]:
    """Yield the tables of a profile: totals, parts, work of an image."""
    yield _totals(profile)
    yield _parts(profile)
    yield _work(profile)


def memory_table(memory: StepMemory) -> Table:
    """Return the table of what a training step takes."""
    table = new_table("memory of a training step, one process", "part", "GiB", wrap=("part",))
    table.add_row("weights of the supernet", _gib(memory.weights))
    table.add_row("gradients", _gib(memory.gradients))
    table.add_row("state of the optimizer", _gib(memory.optimizer))
    if memory.averages:
        table.add_row("averaged weights", _gib(memory.averages))
    table.add_section()
    for task, size in memory.activations.items():
        table.add_row(f"{task}, largest arch, {memory.images[task]} images", _gib(size))
    table.add_section()
    table.add_row("at most at a time, of the tasks the largest", _gib(memory.total))
    return table


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f}" if size >= 2**30 else f"{size / 2**30:.4f}"


def _totals(profile: Profile) -> Table:
    counts = list(profile.parameters.values())
    columns = (_COLUMNS[name] for name in profile.parameters)
    table = new_table("parameters, a shared tensor once", "part", *columns, wrap=("part",))
    table.add_row("total", *(f"{count.total:,}" for count in counts))
    unused = profile.training_only
    if unused:
        used = (f"{count.total - sum(unused.values()):,}" for count in counts)
        table.add_row("total without what only training uses", *used)
    table.add_section()
    table.add_row("shared", *(f"{count.shared:,}" for count in counts))
    for task in profile.macs:
        table.add_row(f"{task}, own part of the backbone", *(f"{count.specific[task]:,}" for count in counts))
    for task in profile.macs:
        table.add_row(f"{task}, neck and head", *(f"{count.heads[task]:,}" for count in counts))
    return table


def _parts(profile: Profile) -> Table:
    tasks = list(profile.macs)
    title = "parameters of each task network alone"
    table = new_table(title, "part", "role", *tasks, left=("role",), wrap=("part",))
    previous = ""
    for part in profile.parts:
        top = part.name.partition(".")[0]
        if previous and top != previous:
            table.add_section()
        previous = top
        table.add_row(part.name, str(part.role), *(f"{part.tasks[t]:,}" if t in part.tasks else "" for t in tasks))
    sums = (sum(part.tasks.get(task, 0) for part in profile.parts) for task in tasks)
    table.add_section()
    table.add_row("sum", "", *(f"{number:,}" for number in sums))
    return table


def _work(profile: Profile) -> Table:
    measured = profile.milliseconds
    numbers = ["backbone", "neck and head", "in all", *([f"ms on {profile.device}"] if measured else [])]
    title = "GMACs of one image (10^9 multiply-accumulates)"
    table = new_table(title, "task", "image", *numbers, left=("task", "image"))
    for task, macs in profile.macs.items():
        height, width = profile.subject.tasks[task].size(profile.subject.space, profile.subject.arch)
        whole = sum(macs.values())
        figures = [_giga(count) for count in (macs["backbone"], whole - macs["backbone"], whole)]
        table.add_row(
            task,
            f"{height} x {width}",
            *figures,
            *([f"{measured[task]:,.2f}" if task in measured else ""] if measured else []),
        )
    return table


def _giga(count: int) -> str:
    """Return a count in 10^9, small ones with more digits."""
    return f"{count / 1e9:,.2f}" if count >= 1e9 else f"{count / 1e9:.4f}"
