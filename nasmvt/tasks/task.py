"""A task: its name, its data, its network for any backbone, and its metric."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from torch import nn

from nasmvt.config import parse
from nasmvt.data.types import DataInfo
from nasmvt.errors import UserError, listed, nearest
from nasmvt.heads import MapNorms
from nasmvt.space import Arch, SearchSpace
from nasmvt.space.task_choice import TaskChoice
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.heads import HEADS
from nasmvt.tasks.kinds import KINDS, Kind
from nasmvt.tasks.network import TaskMetric, TaskNetwork
from nasmvt.tasks.predictor import Predictor


@dataclass(frozen=True, kw_only=True)
class Task:
    """One of the tasks that a supernet or a model serves.

    Raises:
        UserError: if the data do not fit the configuration.
    """

    name: str
    """The user's name for it."""
    config: TaskConfig
    """Its head and weights."""
    info: DataInfo
    """What a network needs to know about its data."""

    def __post_init__(self) -> None:
        if self.info.kind != self.config.kind:
            raise UserError(
                f"the task '{self.name}' is {self.config.kind}, but its data are for {self.info.kind}: "
                "change its kind or its data"
            )
        most = self.kind.most_classes
        if most is not None and len(self.info.classes) > most:
            raise UserError(
                f"a {self.config.kind} task has at most {most} classes, but '{self.name}' has "
                f"{len(self.info.classes)}: merge some"
            )
        try:
            self.config.head.check_data(self.info)
        except UserError as error:
            raise UserError(f"the task '{self.name}': {error}") from None

    def at(self, space: SearchSpace, arch: Arch) -> "Task":
        """Return the task with what an arch of a space chooses for its parts.

        Raises:
            UserError: if the task's head has no such width, or can't be built of it.
        """
        chosen = space.chosen_for(self.name, arch)
        if not chosen:
            return self
        head = self.config.head
        values = {head_field(self, each): option for each, option in chosen}
        given = parse(type(head), {**head.model_dump(), **values}, f"the head of the task '{self.name}'")
        return replace(self, config=self.config.model_copy(update={"head": given}))

    @property
    def kind(self) -> Kind:
        """The kind of the task."""
        return KINDS.get(self.config.kind)

    @property
    def primary(self) -> str:
        """The metric that enters the T-score."""
        return self.kind.primary

    @property
    def nominal_size(self) -> tuple[int, int]:
        """Height and width of the image that position tables and counts assume."""
        return self.config.data.nominal_size

    def network(self, backbone: nn.Module) -> TaskNetwork:
        """Build neck and head on a backbone that declares `strides` and `widths`.

        Raises:
            UserError: if the neck does not fit the backbone's maps.
        """
        config, data = self.config.head, self.config.data
        parts = HEADS.get(config.type).build(backbone.widths, backbone.strides, config, self.info)  # type: ignore[arg-type]
        if config.map_norm is not None:
            norms = MapNorms(backbone.widths, config.map_norm)  # type: ignore[arg-type]
            parts = replace(parts, neck=nn.Sequential(norms, parts.neck))
        return self.kind.network(backbone, parts, classes=self.info.classes, mean=data.mean, std=data.std)

    def predictor(self, network: TaskNetwork) -> Predictor:
        """Return what predicts images with a network as `data.test` says."""
        protocol = self.config.data.test
        usual = Predictor if protocol.once else self.kind.predictor
        return (usual or Predictor)(network, protocol)

    def unread(self, figures: Collection[str]) -> set[str]:
        """Return the parts of predictions that none of some figures of the metric needs.

        Raises:
            UserError: if the metric has no such figure.
        """
        metric = self.metric()
        known = [*metric.compute()]
        for name in figures:
            if name not in known:
                raise UserError(
                    f"the metric of '{self.name}' gives {listed(known)}, not {name!r}{nearest(name, known)}"
                )
        return {*metric.parts.values()} - {metric.parts.get(name) for name in figures}

    def metric(self) -> TaskMetric:
        """Return a fresh metric."""
        return self.kind.metric(self.info)


def head_field(task: Task, chosen: TaskChoice) -> str:
    """Return the field of a task's head settings that a choice of its neck or head decides.

    Raises:
        UserError: if the head has no such width.
    """
    head = task.config.head
    known = {key.replace(".", f".{task.name}.", 1): field for key, field in head.choices.items()}
    if chosen.name not in known:
        widths = f" (choices: {listed(known)})" if known else ", which has none"
        raise UserError(
            f"{chosen.name} must choose a width of the head '{head.type}'{widths}"
            f"{nearest(chosen.name, known) or ': remove the choice'}"
        )
    return known[chosen.name]
