"""Settings of a training."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from nasmvt.config import Config, images_for_batches
from nasmvt.precision import Precision
from nasmvt.tasks.lessons import DistillationConfig


class TrainingConfig(Config):
    """One training, of a supernet or of a chosen model. A step runs every task once."""

    steps: int = Field(default=300, ge=1)
    """Total number of optimizer steps."""
    optimizer: str = "adamw"
    """Name of a timm optimizer."""
    lr: float = Field(default=1e-3, gt=0, le=1e3)
    """Peak learning rate (the paper: 8e-5 at 300k steps)."""
    weight_decay: float = Field(default=0.05, ge=0)
    """Weight decay; not applied to norms, biases (including relative position biases), position tables and scores."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] | None = None
    """Decay rates of the running means of an Adam-like optimizer; None: the optimizer's own."""
    warmup_steps: int = Field(default=20, ge=0)
    """Steps of linear warm-up, part of `steps`."""
    final_lr_fraction: float = Field(default=0.01, ge=0, le=1)
    """Final learning rate of the schedules `cosine` and `poly` as a fraction of the peak."""
    schedule: Literal["cosine", "step", "poly"] = "cosine"
    """How the learning rate falls after the warm-up: along half a cosine, in steps, or as a power of what is left."""
    step_at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.67, 0.92)
    """`step`: where, as fractions of `steps`, the learning rate is multiplied by `step_factor`."""
    step_factor: float = Field(default=0.1, gt=0, lt=1)
    """`step`: the factor."""
    poly_power: float = Field(default=1.0, gt=0)
    """`poly`: the power; 1 falls in a straight line, 0.9 is usual in segmentation."""
    lr_scale: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Factors of the learning rate by pattern of parameters' names, as in a task network (`backbone.**: 0.1`); `*`
    stands for anything but a dot, `**` for anything. The last pattern that fits wins; without one the factor is 1."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Factor of the learning rate from each block of the backbone to the one before it (BEiT, arXiv:2106.08254: 0.65 to
    0.9 for published weights); neck and head have 1. It multiplies `lr_scale`."""
    freeze: tuple[str, ...] = ()
    """Patterns of the names of parameters that are not trained, such as `backbone.conv_stem.*`."""
    frozen_norms: tuple[str, ...] = ()
    """Patterns of the names of BatchNorms that norm by their running statistics in training too, and leave them as they
    are, such as `backbone.**`: small batches then don't spoil the statistics of published weights. Subnets of a
    supernet are still evaluated with statistics of their own."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights, such as 0.9998, which is then what is evaluated, searched
    and exported; None: the weights themselves are. Takes the memory of the weights once more."""
    clip: float | None = Field(default=1.0, gt=0)
    """Bound on the gradients; None: no clipping."""
    clip_mode: Literal["norm", "value"] = "norm"
    """Whether `clip` bounds the norm of all gradients, or each of their values (the paper)."""
    sampling: Literal["uniform", "sandwich"] = "uniform"
    """Which archs a step of a supernet's training trains: one random, or `sandwich`: the largest, the smallest and
    `random_archs` random ones, their gradients averaged (BigNAS). A step costs as many forward and backward passes."""
    random_archs: int = Field(default=2, ge=0)
    """`sandwich`: how many of the archs are random."""
    distillation: DistillationConfig | None = None
    """`sandwich`: what the others learn from the largest arch of the step; null: nothing. `{}` takes the defaults."""
    archs: Literal["common", "per-process"] = "common"
    """Several processes: whether all train the same archs in a step, or each draws its own, so that a step trains as
    many times more. Such a training goes on with the same number of processes alone."""
    largest_first: int = Field(default=0, ge=0)
    """Steps in the beginning of a supernet's training that train the largest arch alone. Random subnets of published
    weights compute next to nothing at first, and learning to read them spoils what the weights know."""
    accumulate: int = Field(default=1, ge=1)
    """Parts into which a step is cut, one after the other, to save memory: the same images, and one optimizer step."""
    activation_checkpointing: bool = False
    """Whether the backward pass runs the blocks of the backbone and the heavy parts of the head once more instead of
    keeping what is inside them: the same gradients in less memory and about a third more time."""
    compile: bool = False
    """Retraining: whether `torch.compile` makes kernels of its own for backbone and neck, which takes minutes in the
    beginning. Results differ by rounding, and where networks draw by chance (drop path)."""
    channels_last: bool | None = None
    """Whether the training computes with channels as the last dimension in memory, which convolutions on tensor cores
    want; None: as the family has it (EfficientNet, which does so everywhere, MPViT and ViT-MVT: yes). Results differ by
    rounding."""
    sync_norm: bool = False
    """CUDA, several processes: whether BatchNorm norms by the statistics of all processes' images (SyncBatchNorm)."""
    precision: Precision = "fp32"
    """In which numbers networks compute, here and in the evaluations of the training: `fp32`, or `bf16` or `fp16` by
    autocast. Weights, norms' statistics, scores, losses, gradients and the optimizer's state stay in float32. With fp16
    steps whose gradients overflow are skipped and counted."""
    tf32: bool | None = None
    """CUDA: whether the operands of float32 products are rounded to 10 bits (TF32), which is faster; None: as torch has
    it, in convolutions alone."""
    evaluate_every: int | None = Field(default=None, ge=1)
    """Steps between evaluations on the search split; None: only at the end."""
    evaluation_images: int | None = Field(default=128, ge=1)
    """Images of the search split per evaluation and task; None: all."""
    recalibration_images: int = Field(default=256, ge=1)
    """Training images of each task for re-estimating a subnet's BatchNorm statistics before it is evaluated."""
    checkpoint_every: int = Field(default=100, ge=1)
    """Steps between checkpoints; one more is written before every evaluation and at the end."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Number of most recent checkpoints to keep: if the newest is damaged, the one before is used."""
    loggers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Programs that get what `metrics.jsonl` holds too: TensorBoard, Weights & Biases, MLflow."""
    log_every: int = Field(default=10, ge=1)
    """Steps between two records of the losses."""

    def check_one_arch(self, what: str) -> None:
        """Refuse settings that only the training of a supernet has.

        Args:
            what: the training, for the sentence: "a retraining".

        Raises:
            ValueError: naming the setting.
        """
        for setting, alone in (("sampling", "uniform"), ("largest_first", 0)):
            value = getattr(self, setting)
            if value != alone:
                raise ValueError(f"{what} trains one arch, but {setting!r} is {value!r}: leave it out")

    def check_many_archs(self) -> None:
        """Refuse settings that only the training of one arch has.

        Raises:
            ValueError: naming the setting.
        """
        if self.compile:
            raise ValueError(
                "a supernet's training runs other archs in every step, and 'compile' would compile each anew: leave it "
                "out, and set retrain.compile"
            )

    @model_validator(mode="before")
    @classmethod
    def _accept_older_keys(cls, values: Any) -> Any:
        """Take `recalibration_batches` of nasmvt 0.1 and `tensorboard` of 0.3."""
        values = images_for_batches(values)
        if not isinstance(values, dict) or not isinstance(values.get("tensorboard"), bool):
            return values
        rest = {key: value for key, value in values.items() if key != "tensorboard"}
        return {**rest, "loggers": rest.get("loggers", ["tensorboard"])} if values["tensorboard"] else rest

    @model_validator(mode="after")
    def _kept_or_compiled(self) -> Self:
        if self.compile and self.activation_checkpointing:
            raise ValueError(
                "'compile' decides by itself what the backward pass recomputes, and doesn't go with "
                "'activation_checkpointing': leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _pupils(self) -> Self:
        if self.distillation is not None and self.sampling != "sandwich":
            raise ValueError(
                "distillation teaches the other archs of a step, but 'sampling' is 'uniform', which trains one: set it "
                "to sandwich, or leave 'distillation' out"
            )
        return self
