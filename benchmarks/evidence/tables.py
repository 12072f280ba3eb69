"""The answers as tables in markdown."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

Answer = Mapping[str, Any]


def as_markdown(answers: Answer) -> str:
    """Return a page with a table for every question that was answered."""
    parts = [f"## {name}\n\n{WRITERS[name](answers[name])}" for name in WRITERS if name in answers]
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; the first column is text."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def estimate(given: Answer, digits: int = 2) -> str:
    """Return a figure with its interval."""
    if given["value"] is None:
        return "undefined"
    if given["low"] is None:
        return f"{given['value']:+.{digits}f}"
    return f"{given['value']:+.{digits}f} ({given['low']:+.{digits}f} to {given['high']:+.{digits}f})"


def _ceiling(answer: Answer) -> str:
    keys = {"between_seeds": "tau between halves of the seeds", "size_and_result": "tau of size and mean result"}
    rows = [[title, *map(estimate, answer[key].values())] for key, title in keys.items()]
    spreads = {"noise": "standard deviation of seeds", "spread": "standard deviation of archs"}
    rows += [[title, *(f"{value:.2f}" for value in answer[key].values())] for key, title in spreads.items()]
    return table([f"{len(answer['archs'])} archs", *answer["noise"]], rows)


def _ranking(answer: Answer) -> str:
    rows = [["ceiling: halves of the seeds", *map(estimate, answer["between_seeds"].values())]]
    rows += [[title, *map(estimate, found["tau"].values())] for title, found in answer["supernets"].items()]
    return table([f"tau over {len(answer['parameters'])} archs", *answer["between_seeds"]], rows)


def _comparing(answers: Sequence[Answer]) -> str:
    rows = [
        [
            found["images"] or "all",
            found["recalibration_images"],
            *map(estimate, found["tau"].values()),
            f"{fmean(found['scores']['T-score']):.1f}",
        ]
        for found in answers
    ]
    head = ["images to compare on", "for BatchNorm statistics", *answers[0]["tau"], "mean inherited T-score"]
    return table(head, rows)


def _sampling(answer: Answer) -> str:
    names = [*next(iter(answer["supernets"].values()))[0]]
    rows = [
        [way, *(", ".join("undefined" if row[name] is None else f"{row[name]:.2f}" for row in rows) for name in names)]
        for way, rows in answer["supernets"].items()
    ]
    return table([f"tau over {answer['archs']} archs, by seed", *names], rows)


def _after_training(answer: Answer) -> str:
    rows = [[steps, *map(estimate, found["tau"].values())] for steps, found in answer.items()]
    return table(["steps after the supernet's", *next(iter(answer.values()))["tau"]], rows)


def _inheritance(answer: Answer) -> str:
    rows = []
    for steps, names in answer["by_steps"].items():
        score = names["T-score"]
        rows.append([steps, f"{score['scratch']:.1f}", f"{score['supernet']:.1f}", estimate(score["difference"], 1)])
    return table(["steps", "from scratch", "from the supernet", f"difference, {len(answer['archs'])} archs"], rows)


def _searches(answer: Answer) -> str:
    rows = [
        [
            title,
            f"{fmean(found['best']):.2f}",
            estimate(found["default_minus_it"]),
            f"{fmean(found['results']):.2f}",
            estimate(found["default_minus_it_trained"]),
        ]
        for title, found in answer["algorithms"].items()
    ]
    head = ["algorithm", "best inherited T-score", "default minus it", "trained from scratch", "default minus it"]
    return table(head, rows)


def _search(answer: Answer) -> str:
    others = [
        [
            f"{len(found['results'])} {title}",
            f"{fmean(found['results']):.2f}",
            estimate(found["winners_minus_it"]),
            estimate(found["default_minus_it"]),
        ]
        for title, found in answer["not_searched"].items()
    ]
    second = ["archs of no choice", "trained from scratch", "all winners minus it", "the default's minus it"]
    begun = answer["from_supernet"]
    means = [f"{fmean(begun[key]):.2f}" for key in ("default", "of equal size")]
    third = table(
        ["trained from the supernet", "the default's winners", f"{len(begun['of equal size'])} of equal size", ""],
        [["", *means, estimate(begun["default_minus_it"])]],
    )
    return "\n\n".join([_searches(answer), table(second, others), third])


def _scores(answer: Answer) -> str:
    agree, chance = (fmean(pair[key] for pair in answer["agreement"]) for key in ("agree", "chance"))
    facts = [
        ["mean move of a score", ", ".join(f"{value:.3f}" for value in answer["moved_mean"])],
        ["largest move", ", ".join(f"{value:.3f}" for value in answer["moved_most"])],
        [f"shared of {answer['layers']} layers", ", ".join(map(str, answer["shared_layers"]))],
        ["layers on which two seeds agree, on average", f"{agree:.2f} (by chance {chance:.2f})"],
    ]
    names = [*answer["results"]["learned"][0]]
    rows = [
        [way, *_means(found, names), estimate(answer["learned_minus"][way], 1)]
        for way, found in answer["results"].items()
    ]
    head = ["sharing", *names, "learned minus it"]
    return table(["scores", "by seed"], facts) + "\n\n" + table(head, rows)


def _sharing(answers: Sequence[Answer]) -> str:
    return "\n\n".join(map(_sharing_within, answers))


def _sharing_within(answer: Answer) -> str:
    names = [*answer["results"]["searched"][0]]
    rows = [[way, *_means(found, names)] for way, found in answer["results"].items()]
    head = [f"within {answer['bound']:,} parameters", *names]
    against = [[pair, estimate(found, 1)] for pair, found in answer["differences"].items()]
    return table(head, rows) + "\n\n" + table(["difference of T-scores", ""], against)


def _means(rows: Sequence[Answer], names: Sequence[str]) -> list[str]:
    return [_figure(fmean(row[name] for row in rows)) for name in names]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


def _spent(answer: Answer) -> str:
    rows = [
        [kind, int(spent["units"]), f"{spent['seconds'] / spent['units']:.1f}", f"{spent['seconds'] / 60:.1f}"]
        for kind, spent in answer.items()
    ]
    return table(["units", "number", "seconds each", "minutes in all"], rows)


WRITERS: Mapping[str, Callable[[Any], str]] = {
    "ceiling": _ceiling,
    "ranking": _ranking,
    "ranking_at_equal_size": _ranking,
    "comparing": _comparing,
    "sampling": _sampling,
    "after_training": _after_training,
    "inheritance": _inheritance,
    "search": _search,
    "longer_search": _searches,
    "scores": _scores,
    "sharing": _sharing,
    "spent": _spent,
}
"""By question."""
