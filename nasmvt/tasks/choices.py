"""Whether the choices of a space that belong to parts of tasks fit the tasks of an experiment."""

from collections.abc import Mapping

import torch

from nasmvt.errors import UserError, check_task, listed
from nasmvt.space import Arch, SearchSpace
from nasmvt.space.task_choice import RESOLUTION, TaskChoice
from nasmvt.tasks.build import SizeReader, build_skeleton
from nasmvt.tasks.task import Task, head_field

_LEAST = 16
"""Pixels of the smallest side of images, as in `data.image_size`."""


def check_choices(space: SearchSpace, tasks: Mapping[str, Task]) -> None:
    """Refuse choices for tasks that do not exist, of settings that are no widths, or that make no difference.

    Networks with the largest and with the smallest option of each are built on `meta`.

    Raises:
        UserError: naming the choice.
    """
    decided: dict[tuple[str, str], str] = {}
    for chosen in space.task_choices:
        check_task(f"the choice {chosen.name}", chosen.task, tasks)
        task = tasks[chosen.task]
        if chosen.part == RESOLUTION:
            _check_resolution(space, task, chosen)
            continue
        field = chosen.task, head_field(task, chosen)
        if field in decided:
            raise UserError(
                f"{decided[field]} and {chosen.name} both choose '{field[1]}' of the head '{task.config.head.type}' of "
                f"the task '{chosen.task}': remove one of them"
            )
        decided[field] = chosen.name
    for arch in space.covering:
        for task in tasks.values():
            task.at(space, arch)
    for chosen in space.task_choices:
        if chosen.part == RESOLUTION:
            continue
        read, narrow = SizeReader(space, tasks[chosen.task]), _smallest_in(space, chosen.name)
        if len(space.choices[chosen.name].options) > 1 and read(space.largest) == read(narrow):
            raise UserError(
                f"{chosen.name} changes no tensor of the networks of the task '{chosen.task}', which lack such a part: "
                "remove the choice"
            )


def _check_resolution(space: SearchSpace, task: Task, chosen: TaskChoice) -> None:
    """Refuse images that the networks or the data of a task can't be of."""
    network = build_skeleton(space, task, space.largest, "meta").eval()
    sides = [side for side in space.choices[chosen.name].options if isinstance(side, int)]
    coarsest = max(network.backbone.strides)  # type: ignore[arg-type]
    wrong = [side for side in sides if side % coarsest or side < _LEAST]
    if wrong:
        raise UserError(
            f"{chosen.name} must choose multiples of {coarsest} pixels, the coarsest stride of the backbone, from "
            f"{_LEAST} on, but offers {listed(wrong)}: change them"
        )
    data = task.config.data
    for split, placements in (("train", lambda at: at.train_placement), ("test", lambda at: at.test_placements)):
        if len({str(placements(data.at((side, side)))) for side in sides}) < len(sides):
            raise UserError(
                f"{chosen.name} chooses data.image_size, which images placed by '{getattr(data, split).type}' do not "
                f"follow: change data.{split}.type of the task '{task.name}', or remove the choice"
            )
    with torch.no_grad():
        for side in sides:
            network.workload(torch.empty(1, 3, side, side, device="meta"))


def _smallest_in(space: SearchSpace, name: str) -> Arch:
    """Return the largest arch but for one choice."""
    return space.build(lambda choice, each, block: choice.smallest if each == name else choice.largest)
