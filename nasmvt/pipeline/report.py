"""The report of a run: one HTML page about the steps done so far."""

import shlex
from collections.abc import Mapping, Sequence
from statistics import median

from nasmvt import __version__
from nasmvt.errors import UserError
from nasmvt.files import write_text
from nasmvt.pipeline.archs import ArchFile
from nasmvt.pipeline.comparison import Compared
from nasmvt.pipeline.front import Front
from nasmvt.pipeline.layout import TrainingFiles
from nasmvt.pipeline.network_blocks import find_blocks
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.runs import stage_of
from nasmvt.report.blocks import SHARED, draw_blocks, draw_parts, task_colors
from nasmvt.report.charts import Mark, Series, color, line_chart, scatter, shade, short
from nasmvt.report.page import Section, facts, figure, image, legend, note, page, row, table
from nasmvt.search import Candidate, Journal
from nasmvt.space import Sharing
from nasmvt.training.metrics import MetricsLog

_BEST = 10
"""Candidates in the table."""
_PALE = "80"
"""Opacity of the colour of a task's neck and head, beside that of its backbone."""


class Report:
    """The page about a run; sections about steps that are still to be done say so.

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._tasks = run.tasks
        self._best = _found(run)
        self._front = _front(run)

    def write(self, refresh: int | None = None) -> None:
        """Write the page into the run directory.

        Args:
            refresh: seconds after which a browser loads the page again; None: never.
        """
        sections = [
            Section("data", "Data and space", self._data() + self._space()),
            Section("supernet", "Supernet", self._training(self._run.supernet_files)),
            Section("search", "Search", self._search()),
            Section("network", "The searched network", self._network()),
            Section("retraining", "Retraining", self._retrainings()),
            Section("comparison", "Comparison on val", self._comparison()),
            Section("images", "Images", self._images()),
            Section("timings", "Timings", self._timings()),
            Section("commands", "Commands", self._commands()),
        ]
        title = f"nasmvt run {self._run.path.resolve().name}"
        write_text(self._run.report_path, page(title, self._summary(), sections, refresh))

    # -- what went in -----------------------------------------------------------------------------

    def _summary(self) -> str:
        run, best = self._run, self._best
        values = [("stage", stage_of(run)), ("space", run.experiment.space.name), ("seed", str(run.experiment.seed))]
        if best is not None and best.score is not None:
            values.append(("T-score, search split", f"{best.score:.2f}"))
        if best is not None and best.parameters is not None:
            values.append(("parameters", f"{best.parameters.count.total:,}"))
        return facts(values)

    def _data(self) -> str:
        rows, warnings = [], []
        report = self._run.data_report()
        for name, record in self._run.records.items():
            for split, known in record.splits.items():
                seen = report.get(name, {}).get(split, {})
                counts = ", ".join(f"{text} {count:,}" for text, count in seen.get("classes", {}).items())
                unit = f" (of {seen['labels_of_images']:,} images, in {seen['unit']})" if counts else ""
                labels = _shortened(counts) + unit
                rows.append((name, record.kind, split, f"{known.images:,}", labels, known.digest[:12]))
            warnings += [f"{name}: {warning}" for warning in report.get(name, {}).get("warnings", [])]
        headers = ("task", "kind", "split", "images", "labels", "digest")
        return table(headers, rows) + "".join(map(note, warnings))

    def _space(self) -> str:
        space = self._run.experiment.space
        rows = [
            (name, "  ".join(map(str, choice.options)), choice.per or "once") for name, choice in space.choices.items()
        ]
        return f"<h3>Space: family {space.family}, {short(space.size)} archs</h3>" + table(
            ("choice", "options", "made for each"), rows
        )

    # -- trainings --------------------------------------------------------------------------------

    def _training(self, files: TrainingFiles) -> str:
        entries = MetricsLog(files.metrics).read()
        losses = [entry for entry in entries if "loss" in entry]
        evaluations = [entry for entry in entries if "metrics" in entry]
        if not losses:
            return note("Not trained yet.")
        charts = []
        for task in self._tasks.values():
            curves = [
                Series(name, [(entry["step"], entry["loss"][task.name].get(name, float("nan"))) for entry in losses])
                for name in losses[0]["loss"][task.name]
            ]
            chart = line_chart(curves, "step", "training loss") + _legend(curves)
            charts.append(figure(chart, f"{task.name}: losses"))
        for task in self._tasks.values():
            subnets = evaluations[0]["metrics"] if evaluations else ()
            curves = [
                Series(name, [(one["step"], one["metrics"][name][task.name][task.primary]) for one in evaluations])
                for name in subnets
            ]
            chart = line_chart(curves, "step", f"{task.primary} %", zero=True) + _legend(curves)
            charts.append(figure(chart, f"{task.name}: {task.primary} on the search split"))
        return row(charts)

    def _retrainings(self) -> str:
        parts = []
        for name in self._run.retrained_names():
            open_ = " open" if name == "best" else ""
            content = self._training(self._run.retrain_files(name))
            parts.append(f"<details{open_}><summary>{name}</summary>{content}</details>")
        return "".join(parts) or note("Nothing was retrained yet.")

    # -- the search -------------------------------------------------------------------------------

    def _search(self) -> str:
        if self._front is None:
            return note("Not searched yet.")
        candidates, best = self._front.candidates, max(self._front.candidates, key=lambda one: one.score)
        last = max(one.generation for one in candidates)
        chosen = best.arch.id if self._best is None else self._best.id
        marks = [
            Mark(
                one.parameters.total,
                one.score,
                self._describe(one),
                shade(one.generation / last if last else 0.0),
                ring=one.arch.id == chosen,
            )
            for one in candidates
        ]
        corners = [(float(one.parameters.total), one.score) for one in self._front.members]
        limit = None if self._best is None else self._best.budget
        chart = scatter(marks, "parameters in total", "T-score on the search split", limit=limit, front=corners)
        names = [(f"generation {number}", shade(number / last if last else 0.0)) for number in _few(last + 1)]
        state = "" if self._front.complete else " The search is not complete."
        caption = f"{len(candidates)} candidates; line: no other is better and smaller; circle: the result.{state}"
        rows = [
            (f"{one.score:.2f}", *_primaries(one.metrics), f"{one.parameters.total:,}", one.generation, str(one.arch))
            for one in sorted(candidates, key=lambda one: -one.score)[:_BEST]
        ]
        headers = ("T-score", *self._metric_names(), "parameters", "generation", "arch")
        return figure(chart + legend(names), caption) + f"<h3>The best {len(rows)}</h3>" + table(headers, rows, best=0)

    def _describe(self, one: Candidate) -> str:
        figures = "  ".join(
            f"{name} {value}" for name, value in zip(self._metric_names(), _primaries(one.metrics), strict=True)
        )
        lines = (f"T-score {one.score:.2f}   {one.parameters.total:,} parameters", figures, *str(one.arch).split(" "))
        return "\n".join((*lines, f"generation {one.generation}"))

    def _metric_names(self) -> list[str]:
        return [f"{name} {task.primary}" for name, task in self._tasks.items()]

    # -- its result -------------------------------------------------------------------------------

    def _network(self) -> str:
        best = self._best
        if best is None:
            return note("Not searched yet.")
        space = self._run.experiment.space
        arch = best.read_arch(space, self._run.best_path)
        blocks = find_blocks(space, self._tasks, arch, best.read_sharing() or Sharing.of({}))
        chosen = {name: value if isinstance(value, tuple) else (value,) for name, value in arch.items()}
        rows = [(name, "  ".join(map(str, options))) for name, options in chosen.items()]
        drawn = "<h3>Layers by block, from input to output; a lane for each task</h3>" + draw_blocks(
            blocks, list(self._tasks)
        )
        chosen_table = f"<div><h3>Choices</h3>{table(('choice', 'value'), rows)}</div>"
        return row((chosen_table, self._parameters(best))) + drawn

    def _parameters(self, best: ArchFile) -> str:
        if best.parameters is None:
            return ""
        count, colors = best.parameters.count, task_colors(list(self._tasks))
        parts = [
            ("shared", count.shared, SHARED),
            *((f"{task}, own part of the backbone", size, colors[task]) for task, size in count.specific.items()),
            *((f"{task}, neck and head", size, colors[task] + _PALE) for task, size in count.heads.items()),
        ]
        rows = [("total", f"{count.total:,}"), *((name, f"{size:,}") for name, size, _ in parts)]
        title = "<h3>Parameters, a shared tensor counted once</h3>"
        return f"<div>{title}{draw_parts(parts)}{table(('part', 'parameters'), rows)}</div>"

    def _comparison(self) -> str:
        if not self._run.comparison_path.is_file():
            return note("Not compared yet.")
        found = self._run.comparison()
        rows = [
            (
                "searched" if item.name == "best" else item.name,
                f"{item.score:.2f}",
                *_primaries(item.metrics),
                f"{item.parameters.total:,}",
                "yes" if item.within_budget else "no",
                _difference(item),
            )
            for item in found
        ]
        headers = ("arch", "T-score", *self._metric_names(), "parameters", "within the budget", "searched minus it")
        searched = next((number for number, item in enumerate(found) if item.name == "best"), None)
        return table(headers, rows, best=searched) + note(
            "All retrained with the same settings; differences of the T-score with 95 % intervals."
        )

    def _images(self) -> str:
        first, last, model = self._run.supernet_files, self._run.supernet_files, "supernet"
        if "best" in self._run.retrained_names():
            last, model = self._run.retrain_files("best"), "searched network"
        shown = []
        for task in self._tasks:
            pair = (
                image(first.batch(task), f"{task}: first training batch with its labels"),
                image(
                    last.predictions(task),
                    f"{task}: labels and last predictions of the {model}, side by side",
                    double=True,
                ),
            )
            shown.append(row(part for part in pair if part))
        return "".join(shown) or note("No images were drawn yet.")

    # -- how it went ------------------------------------------------------------------------------

    def _timings(self) -> str:
        rows: list[tuple[object, ...]] = []
        folders = [("supernet", self._run.supernet_files)]
        folders += [(f"retrain {name}", self._run.retrain_files(name)) for name in self._run.retrained_names()]
        for name, files in folders:
            logged = [entry for entry in MetricsLog(files.metrics).read() if entry.get("steps_per_second")]
            if logged:
                speed = float(logged[-1]["steps_per_second"])
                step = int(logged[-1]["step"])
                rows.append((name, f"{step:,} steps", f"{step / speed:,.0f}", f"{1 / speed:.3f}"))
        if self._front is not None:
            for task, seconds in Journal(self._run.search_files.journal).seconds().items():
                count = f"{len(seconds):,} evaluations"
                rows.append((f"search, {task}", count, f"{sum(seconds):,.0f}", f"{median(seconds):.3f}"))
        if not rows:
            return note("Nothing was measured yet.")
        return table(("what", "how many", "seconds in total", "seconds each"), rows) + note(
            "Trainings: from the average speed of their last session. Evaluations of the search: summed over all "
            "workers; the median."
        )

    def _commands(self) -> str:
        run, best = self._run, self._best
        path = shlex.quote(str(run.path))
        lines = [f"nasmvt train-supernet {shlex.quote(str(run.config_path))} --out NEW"]
        if best is not None:
            options = [f"--budget {best.budget}" if best.budget else ""]
            options += [f"--max-gmacs {task}={macs / 1e9:g}" for task, macs in best.max_macs.items()]
            options += [f"--max-latency {task}={time / 1e3:g}ms" for task, time in best.max_latency.items()]
            options += [f"--sharing {best.sharing_rule}" if best.sharing_rule != "learned" else ""]
            lines.append(" ".join(["nasmvt search NEW", *filter(None, options)]))
        lines += [f"nasmvt retrain NEW --arch {name}" for name in run.retrained_names()]
        if run.comparison_path.is_file():
            lines = [line for line in lines if not line.startswith("nasmvt retrain")] + ["nasmvt compare NEW"]
        if run.folder("export").is_dir():
            lines.append("nasmvt export NEW")
        text = "\n".join(lines).replace("NEW", f"{path}-again")
        return f"<pre>{text}</pre>" + note(f"Written by nasmvt {__version__}.")


def _found(run: Run) -> ArchFile | None:
    return run.best() if run.best_path.is_file() else None


def _front(run: Run) -> Front | None:
    """Return the candidates so far, or None where there are none, or a journal of another version."""
    try:
        return Front(run)
    except UserError:
        return None


def _primaries(metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the first metric of every task, the one that the T-score sums."""
    return [f"{next(iter(values.values())):.1f}" for values in metrics.values()]


def _legend(curves: Sequence[Series]) -> str:
    return legend((curve.name, color(number)) for number, curve in enumerate(curves))


def _difference(item: Compared) -> str:
    more = item.difference
    return "" if more is None else f"{more.mean:+.1f} [{more.low:+.1f}, {more.high:+.1f}]: {more.verdict}"


def _few(count: int) -> list[int]:
    """Return at most six of the numbers below `count`, the ends among them."""
    return sorted({round(i * (count - 1) / 5) for i in range(6)})


def _shortened(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[:most]} ..."
