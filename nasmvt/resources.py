"""The YAML files that come with nasmvt: search spaces, counting patterns and experiments."""

from pathlib import Path

from nasmvt.errors import UserError, listed, nearest

_PACKAGE = Path(__file__).parent


def shipped(folder: str) -> dict[str, Path]:
    """Return the shipped YAML files of a folder such as `search_spaces` or `experiments`, by name.

    The name is that of the file without its suffix. They are inside the package in an installed wheel, and beside it in
    a source checkout.
    """
    inside = _PACKAGE / folder
    home = inside if inside.is_dir() else _PACKAGE.parent / folder
    return {path.stem: path for path in sorted(home.glob("*.yaml"))}


def find(folder: str, name: str | Path) -> Path:
    """Return the file for a name or path; the name of one in a folder below is `papers/name`.

    Raises:
        UserError: if there is neither such a file nor a shipped one of that name.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            there = [str(other) for other in path.parent.glob("*") if other.suffix == path.suffix]
            hint = nearest(path, [*there, *shipped(folder)]) or ": check the path"
            raise UserError(f"there is no file {path}{hint}")
        return path
    below = str(name).rpartition("/")[0]
    known = {f"{below}/{key}" if below else key: file for key, file in shipped(f"{folder}/{below}").items()}
    if str(name) not in known:
        kind = folder.rpartition("/")[2].replace("_", " ").removesuffix("s")
        raise UserError(
            f"there is no {kind} {str(name)!r}{nearest(name, known)} (shipped: {listed(known)}; or give a .yaml file)"
        )
    return known[str(name)]
