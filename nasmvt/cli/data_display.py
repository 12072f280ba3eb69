"""What is printed about data and initial weights: a table per task, and the short form at the start of a training."""

from collections.abc import Iterator, Mapping

from rich.table import Table

from nasmvt.cli.display import say
from nasmvt.data.folders import some
from nasmvt.data.report import LabelCounts, SplitReport
from nasmvt.pipeline.data_report import TaskReport
from nasmvt.supernet.initial import Filled


def data_lines(report: Mapping[str, TaskReport]) -> Iterator[str]:
    """Yield the short form: a line per task, one for what is left out of a split, one per warning."""
    for name, task in report.items():
        splits = "; ".join(f"{split} {_summary(found)}" for split, found in task.splits.items())
        yield f"data of {name}: {splits}"
        for split, found in task.splits.items():
            if found.left_out:
                yield f"left out of {name}, {split}: {_left_out(found)}"
        for warning in task.warnings():
            yield f"warning: {name}, {warning}"


def say_data(report: Mapping[str, TaskReport]) -> None:
    """Print the short form."""
    for line in data_lines(report):
        say(line)


def say_initial(filled: Filled) -> None:
    """Print which weights a supernet begins with."""
    for sentence in filled.sentences():
        say(f"initial weights: {sentence}")


def data_table(name: str, task: TaskReport) -> Table:
    """Return the table of a task: its figures and its classes, by split."""
    splits = list(task.splits.values())
    table = Table(title=f"data of {name}", title_justify="left")
    table.add_column("", overflow="fold")
    for split in task.splits:
        table.add_column(split, justify="right", overflow="fold")
    table.add_row("images used", *(f"{split.images:,}" for split in splits))
    table.add_row("left out", *(_left_out(split) or "0" for split in splits))
    table.add_row("images looked at", *(f"{split.looked_at:,}" for split in splits))
    table.add_row("smallest", *(_size(split.smallest) for split in splits))
    table.add_row("largest", *(_size(split.largest) for split in splits))
    labels = [split.labels for split in splits]
    table.add_row("labels counted in images", *(f"{counts.images:,}" for counts in labels))
    if any(counts.ignored for counts in labels):
        table.add_row("ignored", *(f"{counts.ignored:,} {counts.unit}, {_percent(counts)}" for counts in labels))
    table.add_section()
    for label, class_name in enumerate(splits[0].names if splits[0].labels.classes else ()):
        table.add_row(class_name, *(f"{counts.classes[label]:,} {counts.unit}" for counts in labels))
    return table


def _summary(split: SplitReport) -> str:
    counts = split.labels
    parts = [f"{split.images:,} images"]
    if split.looked_at < split.images:
        parts[0] += f" ({split.looked_at:,} looked at)"
    if counts.classes:
        present = sum(1 for count in counts.classes if count)
        parts.append(
            f"{present} classes" if present == len(split.names) else f"{present} of {len(split.names)} classes"
        )
    if counts.unit == "objects":
        parts.append(f"{sum(counts.classes):,} objects{split.seen}")
    if counts.ignored:
        parts.append(f"{_percent(counts)} of the {counts.unit} ignored")
    if split.smallest is not None and split.largest is not None:
        sizes = dict.fromkeys((_size(split.smallest), _size(split.largest)))
        parts.append(f"{' to '.join(sizes)} pixels")
    return ", ".join(parts)


def _left_out(split: SplitReport) -> str:
    return "; ".join(f"{reason}: {len(names):,} ({some(names)})" for reason, names in split.left_out.items())


def _size(size: tuple[int, int] | None) -> str:
    return "" if size is None else f"{size[1]}x{size[0]}"


def _percent(counts: LabelCounts) -> str:
    return f"{100 * counts.ignored_share:.1f} %"
