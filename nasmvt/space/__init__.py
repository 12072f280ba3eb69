"""Plain values: choices, search spaces, archs, sharing. No torch."""

from nasmvt.space.arch import Arch as Arch
from nasmvt.space.choice import Choice as Choice
from nasmvt.space.library import load_space as load_space
from nasmvt.space.library import shipped_spaces as shipped_spaces
from nasmvt.space.search_space import SearchSpace as SearchSpace
from nasmvt.space.sharing import Role as Role
from nasmvt.space.sharing import Roles as Roles
from nasmvt.space.sharing import Sharing as Sharing
