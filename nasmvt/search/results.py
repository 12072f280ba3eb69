"""The outcome of a search as files: a table of all candidates, and the best of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nasmvt.cost import Budget
from nasmvt.cost.costs import PARAMETERS
from nasmvt.files import atomic, write_text
from nasmvt.search.candidate import Candidate
from nasmvt.search.objective import Objective, Objectives
from nasmvt.search.pareto import ranks
from nasmvt.space import Sharing
from nasmvt.space.arch import Value
from nasmvt.yaml_text import dump_yaml


def candidates_table(candidates: Sequence[Candidate], objectives: Objectives) -> pd.DataFrame:
    """Return one row per candidate in the order given.

    Columns: `rank` from 1, `score`, `front` (see `front`), `parameters` (the total), `shared`, `specific_<task>`,
    `heads_<task>`, `gmacs_<task>` and `ms_<task>` of tasks whose work or latency is bounded or
    minimized (by the tables), `timed_ms_<task>` where the latency was measured,
    `<task>_<metric>` for the primary metric, one column per choice of the space ("3 3 4" if it is
    made per block), `id`, `generation`.
    """
    best = front(candidates, objectives)
    rows = enumerate(zip(candidates, best, strict=True), start=1)
    return pd.DataFrame([_row(rank, candidate, on, objectives.score) for rank, (candidate, on) in rows])


def front(candidates: Sequence[Candidate], objectives: Objectives) -> list[bool]:
    """Return which candidates no other one is better than: as good in every objective, and better in one.

    Where there is a single objective, the total of parameters is the second.
    """
    several = objectives if len(objectives.names) > 1 else replace(objectives, minimize=(PARAMETERS,))
    return [bool(rank == 0) for rank in ranks(np.array([several.values(candidate) for candidate in candidates]))]


def _row(rank: int, candidate: Candidate, on_front: bool, objective: Objective) -> dict[str, Any]:
    count = candidate.parameters
    return {
        "rank": rank,
        "score": candidate.score,
        "front": on_front,
        "parameters": count.total,
        "shared": count.shared,
        **{f"specific_{task}": number for task, number in count.specific.items()},
        **{f"heads_{task}": number for task, number in count.heads.items()},
        **{f"gmacs_{task}": number / 1e9 for task, number in candidate.macs.items()},
        **{f"ms_{task}": number / 1e3 for task, number in candidate.latency.items()},
        **{f"timed_ms_{task}": number / 1e3 for task, number in candidate.timed.items()},
        **{f"{task}_{name}": candidate.metrics[task][name] for task, name in objective.primaries.items()},
        **{name: _text(value) for name, value in candidate.arch.items()},
        "id": candidate.arch.id,
        "generation": candidate.generation,
    }


def _text(value: Value) -> Any:
    return " ".join(map(str, value)) if isinstance(value, tuple) else value


def best_values(
    best: Candidate, sharing: Sharing, budget: Budget, header: Mapping[str, Any], evaluated: int, complete: bool
) -> dict[str, Any]:
    """Return what retraining and reports need to know about the best candidate, as plain values."""
    return {
        "space": header["space"],
        "id": best.arch.id,
        "arch": best.arch.to_dict(),
        "sharing": sharing.to_dict(),
        "parameters": best.parameters.to_dict(),
        "budget": budget.parameters,
        "at_least": budget.at_least,
        "macs": dict(best.macs),
        "max_macs": dict(budget.macs),
        **({"latency": dict(best.latency)} if best.latency else {}),
        **({"timed": dict(best.timed)} if best.timed else {}),
        **({"max_latency": dict(budget.latency)} if budget.latency else {}),
        "sharing_rule": budget.sharing,
        "score": best.score,
        "metrics": {task: dict(metrics) for task, metrics in best.metrics.items()},
        "generation": best.generation,
        "seed": header["seed"],
        "algorithm": header["config"]["algorithm"],
        "evaluated": evaluated,
        "complete": complete,
        "weights": header["weights"],
    }


@dataclass(frozen=True)
class ResultFiles:
    """Where the outcome of a search is written."""

    candidates: Path
    """The table of all candidates, as CSV."""
    best: Path
    """The values of the best candidate, as YAML."""

    def write(self, table: pd.DataFrame, best: Mapping[str, Any]) -> None:
        """Write both files, each atomically."""
        write_table(self.candidates, table)
        write_best(self.best, best)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table of candidates as CSV, whole or not at all."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False)


def write_best(path: Path, best: Mapping[str, Any]) -> None:
    """Write the values of a candidate as YAML, whole or not at all."""
    write_text(path, dump_yaml(dict(best)))
