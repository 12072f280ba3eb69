"""Archs by name or file: one format for an arch with its sharing."""

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from nasmvt.config import Config, parse, read_yaml
from nasmvt.errors import UserError, listed, nearest
from nasmvt.files import write_text
from nasmvt.pipeline.comparison import Counted
from nasmvt.space import Arch, SearchSpace, Sharing
from nasmvt.space.sharing import SharingRule
from nasmvt.yaml_text import dump_yaml

Metrics = dict[str, dict[str, float]]


class ArchFile(Config):
    """An arch with its properties: the result of a search, the arch of a retraining, or a user's file."""

    model_config = ConfigDict(extra="ignore")

    arch: dict[str, Any]
    id: str | None = None
    """Of the arch that `metrics` belong to."""
    sharing: dict[str, tuple[str, ...]] | None = None
    """The tasks that share each layer; None: by the supernet's scores."""
    complete: bool = True
    """Whether the search that found it was completed."""
    budget: int | None = None
    at_least: int | None = None
    max_macs: dict[str, int] = Field(default_factory=dict)
    max_latency: dict[str, int] = Field(default_factory=dict)
    """In microseconds."""
    sharing_rule: SharingRule = "learned"
    metrics: Metrics = Field(default_factory=dict)
    """On the search split, in percent, with the weights whose fingerprint is `weights`."""
    weights: str | None = None
    score: float | None = None
    """T-score on the search split."""
    parameters: Counted | None = None

    @classmethod
    def read(cls, path: Path) -> "ArchFile":
        """Read a YAML file with these values, or only an arch.

        Raises:
            UserError: if it can't be read or breaks a rule.
        """
        content = read_yaml(path)
        return parse(cls, content if "arch" in content else {"arch": content}, str(path))

    @classmethod
    def of(cls, arch: Arch, sharing: Sharing) -> "ArchFile":
        """Return the values for an arch with its sharing."""
        return cls(arch=arch.to_dict(), sharing={layer: tuple(tasks) for layer, tasks in sharing.to_dict().items()})

    def write(self, path: Path) -> None:
        """Write the known values as YAML, atomically."""
        write_text(path, dump_yaml(self.model_dump(mode="json", exclude_unset=True)))

    def read_arch(self, space: SearchSpace, source: Path) -> Arch:
        """Return the arch in a space.

        Raises:
            UserError: if it is not in the space; names `source`.
        """
        return space.arch(self.arch, str(source))

    def read_sharing(self) -> Sharing | None:
        """Return the sharing, if it is known."""
        return None if self.sharing is None else Sharing.of(self.sharing)

    def check_complete(self, source: Path) -> None:
        """Refuse the result of an interrupted search.

        Raises:
            UserError: if the search was interrupted.
        """
        if not self.complete:
            raise UserError(
                f"{source} is the result of an interrupted search: run the same 'nasmvt search' again to "
                "finish it, or pass --accept-unfinished to use the arch anyway"
            )


def arch_path(name: str, best: Path | None = None) -> Path | None:
    """Return the file that a name refers to, or None for a name in the space.

    Args:
        name: "best" where there is such a file, a YAML file, or another name.
        best: the file that "best" refers to.
    """
    path = best if name == "best" and best is not None else Path(name)
    return path if path.suffix in {".yaml", ".yml"} else None


def find_arch(space: SearchSpace, name: str, best: Path | None = None) -> tuple[Arch, Sharing | None]:
    """Return an arch, with its sharing if it comes from a file that has it.

    Args:
        space: the search space.
        name: a named arch, "smallest", "largest", "best" where there is such a file, or a YAML file.
        best: the file that "best" refers to.

    Raises:
        UserError: if there is no such arch, or the file breaks a rule.
    """
    ends = {"smallest": space.smallest, "largest": space.largest}
    if name in space.archs:
        return space.named(name), None
    if name in ends:
        return ends[name], None
    path = arch_path(name, best)
    if path is None:
        known = [*space.archs, *ends, *(["best"] if best else [])]
        raise UserError(f"there is no arch {name!r}{nearest(name, known)} (archs: {listed(known)}; or a .yaml file)")
    given = ArchFile.read(path)
    return given.read_arch(space, path), given.read_sharing()
