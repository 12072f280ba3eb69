"""The layers of an arch's networks by block, for any family: a block is an item of a list of equal modules."""

from collections.abc import Mapping

from torch import nn

from nasmvt.report.blocks import Block, Layer
from nasmvt.space import Arch, SearchSpace, Sharing
from nasmvt.tasks.build import build_skeleton
from nasmvt.tasks.task import Task

_ROOT = "backbone"


def find_blocks(space: SearchSpace, tasks: Mapping[str, Task], arch: Arch, sharing: Sharing) -> list[Block]:
    """Return the blocks of the backbones of an arch, built on `meta`.

    Raises:
        UserError: if the family can't build the arch.
    """
    sizes: dict[str, dict[str, int]] = {}
    homes: dict[str, str] = {}
    names: dict[str, str] = {}
    for task in tasks.values():
        network = build_skeleton(space, task, arch, "meta")
        items = _items(network)
        for layer, module in network.named_modules():
            own = dict(module.named_parameters(recurse=False))
            if own and (layer == _ROOT or layer.startswith(f"{_ROOT}.")):
                sizes.setdefault(layer, {})[task.name] = sum(parameter.numel() for parameter in own.values())
                homes[layer] = _home(layer, items)
                names[layer] = layer[len(homes[layer]) :].lstrip(".") or ", ".join(own)
    blocks: dict[str, list[Layer]] = {}
    for layer, home in homes.items():
        sharers = tuple(task for task in sharing.tasks(layer) if task in sizes[layer])
        blocks.setdefault(home, []).append(Layer(names[layer], sizes[layer], sharers))
    common = [
        home for home, layers in blocks.items() if all(layer.parameters.keys() == tasks.keys() for layer in layers)
    ]
    options = _options(arch, common)
    return [Block(_title(home), options.get(home, ""), layers) for home, layers in blocks.items()]


def _items(network: nn.Module) -> list[str]:
    """Return the names of the items of lists of equal modules that hold modules themselves, innermost ones last."""
    found = []
    for name, module in network.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential) and len(module):
            kinds = {type(child) for child in module}
            if len(kinds) == 1 and all(any(True for _ in child.children()) for child in module):
                found += [f"{name}.{key}" for key, _ in module.named_children()]
    return sorted(found, key=len)


def _home(layer: str, items: list[str]) -> str:
    """Return the block of a layer; outside of lists, it is the child of the backbone."""
    around = [item for item in items if layer == item or layer.startswith(f"{item}.")]
    return around[-1] if around else ".".join(layer.split(".")[:2])


def _title(home: str) -> str:
    return home.removeprefix(f"{_ROOT}.")


def _options(arch: Arch, homes: list[str]) -> dict[str, str]:
    """Return what the arch chooses for each of the blocks, where only one list of them is as long as the options."""
    lists: dict[str, list[str]] = {}
    for home in homes:
        parent, _, key = home.rpartition(".")
        if key.isdecimal():
            lists.setdefault(parent, []).append(home)
    found: dict[str, list[str]] = {}
    for name, value in arch.items():
        if isinstance(value, tuple):
            fitting = [members for members in lists.values() if len(members) == len(value)]
            if len(fitting) == 1:
                for home, option in zip(fitting[0], value, strict=True):
                    found.setdefault(home, []).append(f"{name} {option}")
    return {home: ", ".join(texts) for home, texts in found.items()}
