"""Choices that belong to a part of a task, by their names: `neck.seg.width`, `head.det.width`."""

from typing import NamedTuple, Self

from nasmvt.space.choice import Choice

PARTS = ("neck", "head")
"""The parts of a task that a space may choose for."""


class TaskChoice(NamedTuple):
    """The name of such a choice, in its parts."""

    name: str
    part: str
    task: str
    setting: str

    @classmethod
    def of(cls, name: str) -> Self | None:
        """Return the parts of a choice's name; None: the backbone's family reads it."""
        part, dot, rest = name.partition(".")
        if part not in PARTS or not dot:
            return None
        task, _, setting = rest.partition(".")
        return cls(name, part, task, setting)

    def check(self, choice: Choice) -> None:
        """Refuse a choice of another form.

        Raises:
            ValueError: saying what is wrong.
        """
        if not (self.task and self.setting):
            raise ValueError(
                f"a choice of a task's part is called neck.TASK.SETTING or head.TASK.SETTING, not {self.name!r}: "
                "rename it"
            )
        if choice.per is not None or not all(type(option) is int and option > 0 for option in choice.options):
            raise ValueError(f"{self.name!r} is chosen once, among positive integers: give it a list of these")


def flattened(choices: dict[str, object]) -> dict[str, object]:
    """Return choices by their dotted names; `{head: {det: {width: [24, 32]}}}` is another way to write them."""
    found: dict[str, object] = {}
    for name, value in choices.items():
        inner = isinstance(value, dict) and not {"options", "per"} & value.keys()
        if inner and name.partition(".")[0] in PARTS:
            found |= flattened({f"{name}.{key}": each for key, each in value.items()})  # type: ignore[attr-defined]
        else:
            found[name] = value
    return found
