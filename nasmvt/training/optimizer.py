"""The optimizer: settings come from the configuration, its state from the checkpoint."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from nasmvt.errors import UserError, listed, nearest
from nasmvt.tasks.trainable import Trained
from nasmvt.training.config import TrainingConfig
from nasmvt.training.selection import groups_of

_SCHEDULED = {"lr", "params"}
"""Entries of a parameter group that change from step to step and are recomputed in each."""


class NamedOptimizer:
    """A timm optimizer whose state is kept by the names of the parameters.

    Its state dict holds no settings: a resumed training uses those of its configuration, even if edited.

    Raises:
        UserError: if there is no such optimizer, or it takes no betas although some are set.
    """

    def __init__(self, trained: Iterable[Trained], config: TrainingConfig) -> None:
        parameters = list(trained)
        self._name = config.optimizer
        self._names: dict[Tensor, str] = {item.parameter: item.name for item in parameters}
        self._config = config
        self.optimizer = _make(groups_of(parameters, config.lr_scale), config)
        self.scheduler = _SCHEDULES[config.schedule](self.optimizer, config)
        self._first = [_entries(group) for group in self.optimizer.param_groups]

    @property
    def lr(self) -> float:
        """The learning rate of the current step, of parameters whose factor is 1."""
        group = self.optimizer.param_groups[0]
        return float(group["lr"]) / float(group.get("lr_scale", 1))

    def schedule(self, step: int) -> None:
        """Set the learning rate of a step, counted from 0."""
        self.scheduler.step_update(step)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state, as plain values and tensors by parameter name."""
        held = self.optimizer.state_dict()["state"]
        return {
            "name": self._name,
            "groups": _gathered(self.optimizer, self._first),
            "state": {name: held[index] for index, name in enumerate(self._places()) if index in held},
        }

    def load_state_dict(self, saved: Mapping[str, Any], path: Path) -> None:
        """Load an optimizer's state, also that of another one with the same kind of state (adam, adamw).

        Raises:
            UserError: if this optimizer can't use it.
        """
        if saved["name"] != self._name and saved["state"]:
            had = _Gathered.of(saved["state"].values(), saved["groups"])
            wanted = _probe(self._config)
            if had != wanted:
                raise UserError(
                    f"{path} was written with the optimizer {saved['name']!r}, which keeps {had}, but {self._name!r} "
                    f"keeps {wanted}: continue with {saved['name']!r}, or start a new run"
                )
        own = self.optimizer.state_dict()
        names = self._places()
        unknown = saved["state"].keys() - names
        if not any(saved["groups"]):  # nothing is kept by group: settings may divide the parameters otherwise now
            saved = {**saved, "groups": [{} for _ in own["param_groups"]]}
        if unknown or len(saved["groups"]) != len(own["param_groups"]):
            raise UserError(
                f"{path} was written for other parameters ({listed(sorted(unknown)[:3]) or 'other groups'}): use the "
                "run's own checkpoint, or start a new run"
            )
        own["state"] = {index: saved["state"][name] for index, name in enumerate(names) if name in saved["state"]}
        for group, gathered in zip(own["param_groups"], saved["groups"], strict=True):
            group.update(gathered)
        self.optimizer.load_state_dict(own)

    def _places(self) -> list[str]:
        """Return the names of the parameters in the optimizer's order."""
        return [self._names[parameter] for group in self.optimizer.param_groups for parameter in group["params"]]


def _cosine(optimizer: Optimizer, config: TrainingConfig) -> Scheduler:
    least = config.lr * config.final_lr_fraction
    steps = max(config.steps, 2)  # the first has the peak of any; timm warns of one alone
    return CosineLRScheduler(optimizer, t_initial=steps, lr_min=least, **_warm_up(config))


def _steps(optimizer: Optimizer, config: TrainingConfig) -> Scheduler:
    # timm looks one step ahead.
    places = [max(round(part * config.steps), 1) + 1 for part in sorted(config.step_at)]
    settings = {"decay_rate": config.step_factor, "warmup_prefix": False, **_warm_up(config)}
    return MultiStepLRScheduler(optimizer, decay_t=places, **settings)


def _poly(optimizer: Optimizer, config: TrainingConfig) -> Scheduler:
    least = config.lr * config.final_lr_fraction
    settings = {"power": config.poly_power, "lr_min": least, **_warm_up(config)}
    return PolyLRScheduler(optimizer, t_initial=config.steps, **settings)


_SCHEDULES = {"cosine": _cosine, "step": _steps, "poly": _poly}


def _warm_up(config: TrainingConfig) -> dict[str, Any]:
    return {
        "warmup_t": min(config.warmup_steps, config.steps - 1),
        "warmup_lr_init": config.lr * 1e-3,
        "t_in_epochs": False,
    }


def _make(groups: list[dict[str, Any]], config: TrainingConfig) -> Optimizer:
    more = {} if config.betas is None else {"betas": config.betas}
    known = config.optimizer in list_optimizers()
    if known and get_optimizer_info(config.optimizer).second_order:
        raise UserError(
            f"the optimizer must work with gradients, but {config.optimizer!r} needs second derivatives: choose another"
        )
    try:
        made = create_optimizer_v2(groups, opt=config.optimizer, lr=config.lr, weight_decay=config.weight_decay, **more)
    except (ValueError, KeyError, AssertionError) as error:
        raise UserError(
            f"the optimizer must be a timm optimizer that works here, not {config.optimizer!r} ({error})"
            f"{'' if known else nearest(config.optimizer, list_optimizers())}"
        ) from None
    if more and "betas" not in made.param_groups[0]:
        raise UserError(f"the optimizer {config.optimizer!r} takes no betas: leave training.betas out")
    if isinstance(made, Adam):  # one call for all parameters, which torch leaves off on CPUs: a quarter of the time
        for group in made.param_groups:  # (its SGD wants a momentum of all parameters or of none)
            group["fused"] = True
    return made


def _entries(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in _SCHEDULED}


def _gathered(optimizer: Optimizer, first: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each group, the entries that the optimizer changed itself (lamb's step count)."""
    return [
        {key: value for key, value in _entries(group).items() if key not in start or _differ(start[key], value)}
        for group, start in zip(optimizer.param_groups, first, strict=True)
    ]


def _differ(first: Any, second: Any) -> bool:
    return isinstance(second, Tensor) or bool(first != second)


class _Gathered:
    """The names in an optimizer's state, per parameter and per group."""

    def __init__(self, state: set[str], groups: set[str]) -> None:
        self._names = (state, groups)

    @classmethod
    def of(cls, states: Iterable[Mapping[str, Any]], groups: Iterable[Mapping[str, Any]]) -> "_Gathered":
        return cls({key for state in states for key in state}, {key for group in groups for key in group})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Gathered) and self._names == other._names

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return listed(sorted(self._names[0] | self._names[1])) or "nothing"


def _probe(config: TrainingConfig) -> _Gathered:
    """Return the state names of a configuration's optimizer, found by one small step."""
    parameter = nn.Parameter(torch.ones(2, 2))
    optimizer = _make([{"params": [parameter]}], config)
    first = [_entries(group) for group in optimizer.param_groups]
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state: dict[str, Tensor] = optimizer.state[parameter]
    return _Gathered.of([state], _gathered(optimizer, first))
