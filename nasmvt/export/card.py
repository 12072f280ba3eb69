"""The model card: what a stranger needs to know about an exported folder."""

import yaml

from nasmvt.export.schema import ExportConfig, ExportedTask

_CARD = """---
{metadata}---

# {space} for {tasks}

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
        metadata=yaml.safe_dump(_metadata(config), sort_keys=False, allow_unicode=True),
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


_HUB_TASKS = {
    "classification": "image-classification",
    "detection": "object-detection",
    "segmentation": "image-segmentation",
    "panoptic": "image-segmentation",
}
"""What the Hugging Face Hub calls kinds of tasks."""


def _metadata(config: ExportConfig) -> dict[str, object]:
    """Return the block by which the Hugging Face Hub lists the model."""
    split = str(config.metrics["split"])
    kinds = list(dict.fromkeys(task.kind for task in config.tasks.values()))
    results = [
        _result(name, config.tasks[name], split, figures) for name, figures in config.metrics.items() if name != "split"
    ]
    return {
        "library_name": "nasmvt",
        "license": "unknown",  # that of the weights is for whoever publishes them to say
        "pipeline_tag": next((_HUB_TASKS[kind] for kind in kinds if kind in _HUB_TASKS), "other"),
        "tags": ["nasmvt", "vision-transformer", "neural-architecture-search", "multi-task-learning", *kinds],
        "model-index": [{"name": f"{config.space.name} for {', '.join(config.tasks)}", "results": results}],
    }


def _result(name: str, task: ExportedTask, split: str, figures: dict[str, float]) -> dict[str, object]:
    """Return the metrics of a task, in percent, as the Hub's model index has them."""
    data = str(task.config.data.get("format", name))
    return {
        "task": {"type": _HUB_TASKS.get(task.kind, task.kind), "name": name},
        "dataset": {"type": data, "name": f"{name} ({data})", "split": split},
        "metrics": [{"type": key, "name": f"{key} (%)", "value": round(value, 2)} for key, value in figures.items()],
    }


def _int8(config: ExportConfig) -> str:
    """Return the section on quantised files; nothing without any."""
    rows = [
        f"| {name} | {metric} | {value:.2f} | {item['int8'][metric]:.2f} | {', '.join(item['kept_in_float']) or '-'} |"
        for name, item in (config.int8 or {}).items()
        for metric, value in item["float"].items()
    ]
    return _INT8.format(rows="\n".join(rows)) if rows else ""
