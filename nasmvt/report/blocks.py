"""The networks of an arch, block by block, with the layers that tasks share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from nasmvt.report.charts import COLORS
from nasmvt.report.page import legend

SHARED = "#1f3a5f"


@dataclass(frozen=True)
class Layer:
    """A layer that one or more tasks have."""

    name: str
    """Inside its block."""
    parameters: Mapping[str, int]
    """By task."""
    sharers: tuple[str, ...]
    """The tasks that use the same tensors."""


@dataclass(frozen=True)
class Block:
    """Layers that belong together."""

    name: str
    options: str
    """What the arch chooses for it."""
    layers: Sequence[Layer]


def draw_blocks(blocks: Sequence[Block], tasks: Sequence[str]) -> str:
    """Return the blocks in the order of the computation, a lane for every task in every layer.

    Lanes of tasks that share a layer have the colour of sharing, the others that of their task.
    """
    colors = task_colors(tasks)
    rows = []
    for block in blocks:
        layers = "".join(_layer(layer, tasks, colors) for layer in block.layers)
        options = f"<small>{escape(block.options)}</small>" if block.options else ""
        rows.append(
            f'<div class="block"><div class="name">{escape(block.name)}{options}</div>'
            f'<div class="layers">{layers}</div></div>'
        )
    return legend([("shared", SHARED), *((f"{task} only", colors[task]) for task in tasks)]) + "".join(rows)


def draw_parts(parts: Sequence[tuple[str, int, str]]) -> str:
    """Return a bar of parts: names, sizes and colours."""
    total = sum(size for _, size, _ in parts) or 1
    cells = "".join(
        f'<i style="width:{100 * size / total:.3f}%;background:{color}" '
        f'data-tip="{escape(name)}: {size:,} ({100 * size / total:.1f} %)"></i>'
        for name, size, color in parts
        if size
    )
    names = [(f"{name} {100 * size / total:.1f} %", color) for name, size, color in parts]
    return f'<div class="bar">{cells}</div>{legend(names)}'


def task_colors(tasks: Sequence[str]) -> dict[str, str]:
    """Return a colour for every task."""
    return {task: COLORS[(number + 1) % len(COLORS)] for number, task in enumerate(tasks)}


def _layer(layer: Layer, tasks: Sequence[str], colors: Mapping[str, str]) -> str:
    lanes = "".join(f'<i style="background:{_color(layer, task, colors)}"></i>' for task in tasks)
    own = [f"{task}: {size:,} of its own" for task, size in layer.parameters.items() if task not in layer.sharers]
    shared = [f"{', '.join(layer.sharers)} share {layer.parameters[layer.sharers[0]]:,}"] if layer.sharers else []
    tip = "\n".join([layer.name, *shared, *own])
    return f'<div class="layer" data-tip="{escape(tip)}">{escape(layer.name)}{lanes}</div>'


def _color(layer: Layer, task: str, colors: Mapping[str, str]) -> str:
    if task not in layer.parameters:
        return "transparent"
    return SHARED if task in layer.sharers else colors[task]
