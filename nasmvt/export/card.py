"""The model card: what a stranger needs to know about an exported folder."""

from nasmvt.export.schema import ExportConfig

_CARD = """# {space} for {tasks}

A vision transformer in the format of nasmvt: one backbone arch for {n} tasks, every shared tensor stored once.

```python
import nasmvt

model = nasmvt.load("path/to/this/folder")
predictions = model.task("{first}").predict(["picture.jpg"])
```

## Tasks

| task | kind | classes | input | {figures} |
| --- | --- | --- | --- | --- |
{rows}

## Parameters

{total:,} in total, shared tensors counted once.

| part | parameters |
| --- | ---: |
{parts}

{layers} layers can be shared; {full} of them are shared by all tasks.

## Arch

{arch}

{int8}## How it was made

{origin} Images are prepared as described in `config.json` under each task's `preprocessing`; `predict` does so.
`local.json`, if present, records where the data are on the machine that wrote this folder: leave it out when
you publish the model.
"""

_INT8 = """## Quantised files

`int8/<task>.onnx`, weights and activations of 8 bits, on `val`:

| task | metric | float | int8 | parts kept in float |
| --- | --- | ---: | ---: | --- |
{rows}

"""

_ORIGIN = """Supernet training, evolutionary search under a bound on the total parameters, retraining, with nasmvt
{version}, after ViT-MVT (TNNLS 2023). The metrics hold for the data that it was trained
for and say nothing about other data."""


def model_card(config: ExportConfig) -> str:
    """Return the card of an exported model as Markdown."""
    tasks, parameters, sharing = config.tasks, config.parameters, config.sharing
    split = config.metrics["split"]
    rows = []
    for name, task in tasks.items():
        figures = ", ".join(f"{key} {value:.2f}" for key, value in config.metrics.get(name, {}).items())
        height, width = task.preprocessing.canvas
        rows.append(
            f"| {name} | {task.kind} | {len(task.classes)} | {height} x {width} px | {figures or 'not measured'} |"
        )
    parts = [f"| shared | {parameters['shared']:,} |"]
    for name in tasks:
        parts.append(f"| {name}, own part of the backbone | {parameters['specific'][name]:,} |")
        parts.append(f"| {name}, neck and head | {parameters['heads'][name]:,} |")
    arch = "\n".join(f"- `{key}`: {value}" for key, value in config.arch.items())
    return _CARD.format(
        space=config.space.name,
        tasks=", ".join(tasks),
        n=len(tasks),
        first=next(iter(tasks)),
        figures="metrics (%)" if split == "none" else f"metrics on `{split}` (%)",
        rows="\n".join(rows),
        total=parameters["total"],
        parts="\n".join(parts),
        layers=len(sharing),
        full=sum(len(shared) == len(tasks) for shared in sharing.values()),
        arch=arch,
        int8=_int8(config),
        origin=config.origin or _ORIGIN.format(version=config.nasmvt),
    )


def _int8(config: ExportConfig) -> str:
    """Return the section on quantised files; nothing without any."""
    rows = [
        f"| {name} | {metric} | {value:.2f} | {item['int8'][metric]:.2f} | {', '.join(item['kept_in_float']) or '-'} |"
        for name, item in (config.int8 or {}).items()
        for metric, value in item["float"].items()
    ]
    return _INT8.format(rows="\n".join(rows)) if rows else ""
