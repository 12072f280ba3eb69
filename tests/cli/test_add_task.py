"""`nasmvt add-task`."""

from pathlib import Path

import yaml


def test_a_task_is_added_and_evaluated(nasmvt, run) -> None:
    nasmvt("export", run, "--out", "model")
    task = {"kind": "segmentation", "data": {"image_size": 32, "val_images": 4}, "batch_size": 3}
    task["head"] = {
        "type": "upernet",
        "channels": 16,
        "strides": [4, 8, 8, 16],
        "pool_scales": [1, 2],
        "aux_channels": 8,
    }
    Path("fourth.yaml").write_text(yaml.safe_dump({"tasks": {"parts": task}}))
    printed = nasmvt("add-task", "model", "fourth.yaml", "--out", "four", "--set", "training.steps=2")
    added = next(line for line in printed.splitlines() if line.startswith("added parameters: "))
    assert int(added.split()[-1].replace(",", "")) > 0
    printed = nasmvt("evaluate", "four", "--set", "tasks.parts.eval_batch_size=2")
    assert "parts" in printed
    assert "has a task 'parts' already" in nasmvt.refused("add-task", "four", "fourth.yaml", "--out", "five")
