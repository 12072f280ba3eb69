"""File names of trainings and searches: the parts of a run directory that `Run` provides."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainingFiles:
    """The files of one training, of the supernet or of a chosen arch."""

    folder: Path

    @property
    def metrics(self) -> Path:
        """Losses and figures by step."""
        return self.folder / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint; older ones lie beside it."""
        return self.folder / "checkpoint.pt"

    @property
    def arch(self) -> Path:
        """The arch with its sharing, of a retraining."""
        return self.folder / "arch.yaml"

    @property
    def curves(self) -> Path:
        """The plot of losses and metrics."""
        return self.folder / "curves.png"

    def batch(self, task: str) -> Path:
        """Return the image of a task's first batch with its labels."""
        return self.folder / "batches" / f"{task}.png"

    def predictions(self, task: str) -> Path:
        """Return the image of what was last predicted for a task."""
        return self.folder / "predictions" / f"{task}.png"


@dataclass(frozen=True)
class SearchFiles:
    """The files of a search."""

    folder: Path

    @property
    def journal(self) -> Path:
        """Every evaluation."""
        return self.folder / "journal.jsonl"

    @property
    def candidates(self) -> Path:
        """Every candidate, ranked."""
        return self.folder / "candidates.csv"

    @property
    def best(self) -> Path:
        """The best candidate's arch with its sharing."""
        return self.folder / "best.yaml"

    @property
    def latency(self) -> Path:
        """The latency table that it was bounded by, or that gave an objective."""
        return self.folder / "latency.json"

    @property
    def front(self) -> Path:
        """The candidates that no other is better than."""
        return self.folder / "front.csv"

    @property
    def front_plot(self) -> Path:
        """All candidates and the front, drawn."""
        return self.folder / "front.png"
