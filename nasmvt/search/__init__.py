"""Searchers (pure ask and tell), evaluation in this process or on Ray, journal."""

from typing import TYPE_CHECKING

from nasmvt.lazy import importer

if TYPE_CHECKING:
    from nasmvt.search.build import make_pool, make_searcher
    from nasmvt.search.candidate import Candidate
    from nasmvt.search.config import SearchConfig
    from nasmvt.search.evaluator import Evaluator
    from nasmvt.search.evolution import EvolutionSearcher
    from nasmvt.search.journal import Journal
    from nasmvt.search.objective import Objective
    from nasmvt.search.pool import Evaluation, InProcessPool, Pool
    from nasmvt.search.random_search import RandomSearcher
    from nasmvt.search.recipe import Recipe
    from nasmvt.search.run import SearchListener, search
    from nasmvt.search.searcher import Searcher

_HOME = {
    "Candidate": "candidate",
    "Evaluation": "pool",
    "Evaluator": "evaluator",
    "EvolutionSearcher": "evolution",
    "InProcessPool": "pool",
    "Journal": "journal",
    "Objective": "objective",
    "Pool": "pool",
    "RandomSearcher": "random_search",
    "Recipe": "recipe",
    "SearchConfig": "config",
    "SearchListener": "run",
    "Searcher": "searcher",
    "make_pool": "build",
    "make_searcher": "build",
    "search": "run",
}

__all__ = [
    "Candidate",
    "Evaluation",
    "Evaluator",
    "EvolutionSearcher",
    "InProcessPool",
    "Journal",
    "Objective",
    "Pool",
    "RandomSearcher",
    "Recipe",
    "SearchConfig",
    "SearchListener",
    "Searcher",
    "make_pool",
    "make_searcher",
    "search",
]

__getattr__ = importer(__name__, _HOME)
