"""Searchers (pure ask and tell), evaluation in this process or on Ray, journal."""

from typing import TYPE_CHECKING

from nasmvt.lazy import lazy_names

if TYPE_CHECKING:
    from nasmvt.search.build import make_pool as make_pool
    from nasmvt.search.build import make_searcher as make_searcher
    from nasmvt.search.candidate import Candidate as Candidate
    from nasmvt.search.config import SearchConfig as SearchConfig
    from nasmvt.search.evaluator import EvaluationSetting as EvaluationSetting
    from nasmvt.search.evaluator import Evaluator as Evaluator
    from nasmvt.search.evolution import EvolutionSearcher as EvolutionSearcher
    from nasmvt.search.journal import Journal as Journal
    from nasmvt.search.nsga2 import NSGA2Searcher as NSGA2Searcher
    from nasmvt.search.objective import Objective as Objective
    from nasmvt.search.objective import Objectives as Objectives
    from nasmvt.search.pool import Evaluation as Evaluation
    from nasmvt.search.pool import InProcessPool as InProcessPool
    from nasmvt.search.pool import Pool as Pool
    from nasmvt.search.predictor import PredictorSearcher as PredictorSearcher
    from nasmvt.search.random_search import RandomSearcher as RandomSearcher
    from nasmvt.search.recipe import Recipe as Recipe
    from nasmvt.search.run import SearchListener as SearchListener
    from nasmvt.search.run import search as search
    from nasmvt.search.searcher import Searcher as Searcher
    from nasmvt.search.strategies import register_searcher as register_searcher

__getattr__, __all__ = lazy_names(__name__)
