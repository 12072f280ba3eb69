"""Whether the networks of a supernet can teach one another."""

from collections.abc import Mapping

import torch

from nasmvt.errors import UserError
from nasmvt.heads.token_labels import Mixing
from nasmvt.space import SearchSpace
from nasmvt.tasks.build import build_skeleton
from nasmvt.tasks.task import Task


def check_lessons(space: SearchSpace, tasks: Mapping[str, Task]) -> None:
    """Refuse tasks that teach maps which depend on the arch, or whose head mixes images.

    The smallest and the largest network of every such task are run on `meta` up to the head.

    Raises:
        UserError: naming the task.
    """
    for name, task in tasks.items():
        if task.size(space, space.smallest) != task.size(space, space.largest):
            raise UserError(
                "distillation compares what two archs say of the same images, but archs choose the resolution of the "
                f"task '{name}': leave resolution.{name} or training.distillation out"
            )
        image = torch.empty(1, 3, *task.size(space, space.largest), device="meta")
        networks = [build_skeleton(space, task, arch, "meta").eval() for arch in (space.smallest, space.largest)]
        mixing = getattr(networks[0].head, "mixing", None)
        if isinstance(mixing, Mixing) and mixing.alpha:
            raise UserError(
                "distillation compares what two archs say of the same images, but the head of the task "
                f"'{name}' mixes them anew for each: set its mix_alpha to 0, or leave training.distillation out"
            )
        if not networks[0].teaches_maps:
            continue
        with torch.no_grad():
            small, large = ([map_BCHW.shape[1] for map_BCHW in network.maps(image)] for network in networks)
        if small != large:
            raise UserError(
                "distillation compares the maps after the neck, which need the same channels in every arch, but the "
                f"task '{name}' has {small} in the smallest and {large} in the largest: give it a neck of one width, "
                "or a method 'criterion' (docs/new-head.md), or leave training.distillation out"
            )
