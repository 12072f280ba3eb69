import pytest

from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.space import SearchSpace
from nasmvt.tasks.norms import check_norms
from tests.conftest import TINY_SPACE, make_tasks


def changed(tasks, **changes):
    """The tasks with changed settings."""
    found = {}
    for name, task in tasks.items():
        config = parse(type(task.config), {**task.config.model_dump(), **changes}, name)
        found[name] = type(task)(name=name, config=config, info=task.info)
    return found


def test_a_norm_of_a_single_value_is_refused_by_name():
    space, tasks = parse(SearchSpace, TINY_SPACE, "tiny"), make_tasks()
    check_norms(space, tasks)
    one = changed({"det": tasks["det"]}, batch_size=1, data={"image_size": 32}, head={"strides": [8, 32], "width": 16})
    with pytest.raises(UserError, match=r"'neck\.levels\.1\..* of the task 'det' sees one, with 'batch_size' 1"):
        check_norms(space, one)
    two = changed(one, batch_size=2)
    check_norms(space, two)
    with pytest.raises(UserError, match="sees one, with 'batch_size' 2 in 2 parts"):
        check_norms(space, two, parts=2)
