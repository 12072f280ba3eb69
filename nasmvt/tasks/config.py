"""Settings of one task: its data, its head, its weights."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, SerializeAsAny, field_validator, model_validator

from nasmvt.config import Config
from nasmvt.data.config import DataConfig
from nasmvt.errors import UserError
from nasmvt.tasks.heads import HEADS, HeadConfig
from nasmvt.tasks.kinds import KINDS

Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0.0)]


class TaskConfig(Config):
    """One task: its kind, data, head and weights."""

    kind: Annotated[str, AfterValidator(KINDS.check)]
    """`classification`, `detection`, `segmentation` or `panoptic`, or `module:name` for one that a module of yours
    registers."""

    data: DataConfig = DataConfig()
    """Where the images come from."""

    head: SerializeAsAny[HeadConfig]
    """The head; its `type` is a registered one (`linear`, `mask_rcnn`, `upernet`), by default that of the kind."""

    batch_size: Count = 16
    """Images per training step."""

    eval_batch_size: Count = 16
    """Images per evaluation step; does not affect the metrics."""

    loss_weight: Weight = 1.0
    """Weight of the task's loss in the sum over the tasks."""

    score_weight: Weight = 1.0
    """Weight of the task's metric in the T-score."""

    @model_validator(mode="before")
    @classmethod
    def _head_of_kind(cls, values: Any) -> Any:
        """Use the default head of the kind if none is given."""
        if not isinstance(values, Mapping) or not isinstance(values.get("kind"), str):
            return values
        head = {} if values.get("head") is None else values["head"]
        try:
            usual = KINDS.get(values["kind"]).head
        except UserError:  # reported by the field
            return {**values, "head": HeadConfig(type="")}
        return {**values, "head": {"type": usual, **head} if isinstance(head, Mapping) else head}

    @field_validator("head", mode="before")
    @classmethod
    def _own_settings(cls, head: Any) -> Any:
        """Validate a head with the settings class of its type."""
        if not isinstance(head, Mapping) or not isinstance(head.get("type"), str):
            return head
        return HEADS.get(HEADS.check(head["type"])).config.model_validate(head)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        served = HEADS.get(self.head.type).kind
        if served != self.kind.rpartition(":")[2]:
            usual = KINDS.get(self.kind).head
            raise ValueError(
                f"a {self.kind} task needs a head for it, '{usual}' by default, but 'head.type' is '{self.head.type}', "
                f"which serves {served}: change it or leave it out"
            )
        if self.data.token_labels is not None and not self.head.reads_token_labels:
            raise ValueError(
                f"token labels train a head that reads them, 'class_attention', but 'head.type' is '{self.head.type}': "
                "change it, or leave data.token_labels out"
            )
        self.head.check_batch(self.batch_size)
        KINDS.get(self.kind).check_data(self.kind, self.data)
        return self
