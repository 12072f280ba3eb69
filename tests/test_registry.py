import pytest

from nasmvt.errors import UserError, check_task
from nasmvt.registry import Registry


@pytest.mark.parametrize("names", [["ant", "bee", "fly"], ["fly", "bee", "ant"]])
def test_a_message_lists_what_is_known_whatever_was_imported_first(names) -> None:
    registry: Registry[int] = Registry("insect")
    for name in names:
        registry.add(name, 1, "here")
    with pytest.raises(UserError, match=r"unknown insect 'bea'; did you mean 'bee'\? \(known: ant, bee, fly\)"):
        registry.get("bea")


def test_a_task_that_does_not_exist_is_named_with_the_option() -> None:
    check_task("--task", "cls", ["cls", "det"])
    with pytest.raises(UserError, match=r"^--task names the task 'clss', unknown; did you mean 'cls'\? \(tasks: cls, "):
        check_task("--task", "clss", ["cls", "det"])
