"""Whether the choices of a space that belong to parts of tasks fit the tasks of an experiment."""

from collections.abc import Mapping

from nasmvt.errors import UserError, check_task
from nasmvt.space import Arch, SearchSpace
from nasmvt.tasks.build import SizeReader
from nasmvt.tasks.task import Task, head_field


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
        read, narrow = SizeReader(space, tasks[chosen.task]), _smallest_in(space, chosen.name)
        if len(space.choices[chosen.name].options) > 1 and read(space.largest) == read(narrow):
            raise UserError(
                f"{chosen.name} changes no tensor of the networks of the task '{chosen.task}', which lack such a part: "
                "remove the choice"
            )


def _smallest_in(space: SearchSpace, name: str) -> Arch:
    """Return the largest arch but for one choice."""
    return space.build(lambda choice, each, block: choice.smallest if each == name else choice.largest)
