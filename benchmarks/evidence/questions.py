"""The questions, asked in processes of their own."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from .ceiling import ceiling
from .inheritance import inheritance
from .laboratory import Laboratory
from .plan import Plan
from .ranking import after_training, comparing, ranking, ranking_at_equal_size, sampling
from .scores import scores
from .search import longer_search, search
from .sharing import sharing

QUESTIONS = {
    "ceiling": ceiling,
    "search": search,
    "longer_search": longer_search,
    "ranking": ranking,
    "sharing": sharing,
    "ranking_at_equal_size": ranking_at_equal_size,
    "sampling": sampling,
    "scores": scores,
    "after_training": after_training,
    "inheritance": inheritance,
    "comparing": comparing,
}
"""In the order in which processes take them: long ones early. What one has trained the others use."""


def asked(plan: Path, folder: Path, wanted: Sequence[str], processes: int) -> Iterator[tuple[str, Any]]:
    """Yield the questions and their answers, each when it is known.

    Raises:
        UserError: if the plan can't be followed; no further question is begun.
    """
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=_end_with_the_parent) as pool:
        names = {pool.submit(_answer, name, plan, folder): name for name in wanted}
        try:
            for answer in as_completed(names):
                yield names[answer], answer.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_the_parent() -> None:
    """Let this process end when the one that started it does, also if that was killed."""
    parent = parent_process()
    assert parent is not None
    Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _answer(name: str, plan: Path, folder: Path) -> Any:
    return QUESTIONS[name](_laboratory(plan, folder))


@cache
def _laboratory(plan: Path, folder: Path) -> Laboratory:
    """Return the one laboratory of this process."""
    torch.set_num_threads(1)
    return Laboratory(Plan.read(plan), folder)
