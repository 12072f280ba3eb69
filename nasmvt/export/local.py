"""local.json of an exported folder: what only holds on this machine and must not be published."""

import json
import os
from pathlib import Path

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from nasmvt.config import Config
from nasmvt.errors import UserError
from nasmvt.export.schema import Roots
from nasmvt.files import write_json, write_text

NAME = "local.json"


class _Local(Config):
    model_config = ConfigDict(extra="ignore")

    roots: dict[str, str] = Field(default_factory=dict)
    """Folders of the data by task, relative to the exported folder."""


def write_local(folder: Path, home: Path, roots: Roots) -> None:
    """Record where the data are, with a .gitignore that keeps it from being published; does nothing without data.

    Args:
        folder: where the files are written.
        home: where they will be.
        roots: folders of the data by task.
    """
    if roots:
        relative = {task: os.path.relpath(root.resolve(), home.resolve()) for task, root in roots.items()}
        write_json(folder / NAME, {"roots": relative})
        write_text(folder / ".gitignore", f"{NAME}\n")


def read_local(folder: Path) -> dict[str, Path]:
    """Return where the data are, by task; empty if the folder does not record it.

    Raises:
        UserError: if the file is damaged.
    """
    path = folder / NAME
    try:
        content = TypeAdapter(_Local).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, ValidationError):
        raise UserError(f"{path} can't be read: delete it, and pass --set tasks.NAME.data.root=FOLDER") from None
    home = folder.resolve()
    return {task: Path(os.path.normpath(home / root)) for task, root in content.roots.items()}
