"""Archs by name or file."""

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from nasmvt.config import Config, parse, read_yaml
from nasmvt.errors import UserError, listed, nearest
from nasmvt.space import Arch, SearchSpace, Sharing
from nasmvt.space.sharing import SharingRule


class ArchFile(Config):
    """What is read of best.yaml, or of a file of the user's."""

    model_config = ConfigDict(extra="ignore")

    arch: dict[str, Any]
    sharing: dict[str, tuple[str, ...]] | None = None
    budget: int | None = None
    max_macs: dict[str, int] = Field(default_factory=dict)
    sharing_rule: SharingRule = "learned"


def read_arch_file(path: Path) -> ArchFile:
    """Read a YAML file as `search` writes it, or one that holds the arch alone.

    Raises:
        UserError: if it can't be read or breaks a rule.
    """
    content = read_yaml(path)
    return parse(ArchFile, content if "arch" in content else {"arch": content}, str(path))


def find_arch(space: SearchSpace, name: str, best: Path | None = None) -> tuple[Arch, Sharing | None]:
    """Return an arch, with its sharing if it comes from a file that says it.

    Args:
        space: the search space.
        name: a named arch, "smallest", "largest", "best" where there is such a file, or a YAML file.
        best: the file that "best" means.

    Raises:
        UserError: if there is no such arch, or the file breaks a rule.
    """
    ends = {"smallest": space.smallest, "largest": space.largest}
    if name in space.archs:
        return space.named(name), None
    if name in ends:
        return ends[name], None
    path = best if name == "best" and best is not None else Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        known = [*space.archs, *ends, *(["best"] if best else [])]
        raise UserError(f"there is no arch {name!r}{nearest(name, known)} (archs: {listed(known)}; or a .yaml file)")
    given = read_arch_file(path)
    sharing = None if given.sharing is None else Sharing.of(given.sharing)
    return space.arch(given.arch, str(path)), sharing
