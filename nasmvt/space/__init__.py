"""Plain values: choices, search spaces, archs, sharing. No torch."""

from nasmvt.space.arch import Arch
from nasmvt.space.choice import Choice
from nasmvt.space.library import load_space, shipped_spaces
from nasmvt.space.search_space import SearchSpace
from nasmvt.space.sharing import Role, Roles, Sharing

__all__ = ["Arch", "Choice", "Role", "Roles", "SearchSpace", "Sharing", "load_space", "shipped_spaces"]
