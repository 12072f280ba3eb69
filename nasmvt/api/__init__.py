"""The commands as functions: what `nasmvt train-supernet`, `search`, `retrain` ... do, for programs and notebooks.

They print nothing. Progress is told to a listener, refusals are `nasmvt.UserError`, and results are on disk, where the
commands find them as well. They are in a package of their own because `nasmvt.search`, `nasmvt.export` and
`nasmvt.report` are packages.
"""

from nasmvt.api.model import add_files as add_files
from nasmvt.api.model import benchmark as benchmark
from nasmvt.api.model import evaluate as evaluate
from nasmvt.api.model import export as export
from nasmvt.api.model import predict as predict
from nasmvt.api.run import compare as compare
from nasmvt.api.run import compare_searches as compare_searches
from nasmvt.api.run import open_run as open_run
from nasmvt.api.run import report as report
from nasmvt.api.run import retrain as retrain
from nasmvt.api.run import search as search
from nasmvt.api.run import train_supernet as train_supernet
from nasmvt.errors import UserError as UserError
from nasmvt.export.loading import load as load
from nasmvt.pipeline.experiment import Experiment as Experiment
from nasmvt.pipeline.run import Run as Run
from nasmvt.search.candidate import Candidate as Candidate
from nasmvt.search.run import SearchListener as SearchListener
from nasmvt.training.loop import Listener as Listener
