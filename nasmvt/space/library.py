"""Search spaces by name or file."""

from pathlib import Path

from nasmvt.config import parse, read_yaml
from nasmvt.resources import find, shipped
from nasmvt.space.search_space import SearchSpace


def shipped_spaces() -> list[str]:
    """Return the names of the spaces that come with nasmvt."""
    return list(shipped("search_spaces"))


def load_space(name: str | Path) -> SearchSpace:
    """Load a search space by the name of a shipped one, or from a YAML file.

    Raises:
        UserError: if there is no such space, or the file breaks a rule (unknown key, bad option ...).
    """
    path = find("search_spaces", name)
    return parse(SearchSpace, {"name": path.stem, **read_yaml(path)}, str(path))
