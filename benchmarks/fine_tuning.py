"""What a published network is worth to each task alone, to set beside `experiments/real_pretrained.yaml`.

The network alone, for one task at a time, with that experiment's data, heads and recipe, for as many steps as its
supernet and its retraining take together: `fine-tuned` (everything is trained), `probe` (its backbone, weights and
statistics, stays as published; neck and head are trained), `scratch` (fresh weights). Metrics of val, in percent.

    NASMVT_SHARED=../shared PYTHONPATH=. python benchmarks/fine_tuning.py --out runs/fine_tuning [--only probe/cls]
"""

import argparse
import json
import time
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch

from nasmvt.files import write_json
from nasmvt.pipeline.datasets import open_data
from nasmvt.pipeline.evaluate import evaluate_on_val
from nasmvt.pipeline.experiment import Experiment, load_experiment
from nasmvt.pipeline.identity import TaskRecord
from nasmvt.pipeline.retrain import Chosen, retrain
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.supernet import begin_with_initial, build_supernet
from nasmvt.space import Sharing

CPU = torch.device("cpu")
WAYS: dict[str, dict[str, Any]] = {
    "fine-tuned": {},
    "probe": {"freeze": ("backbone.**",), "frozen_norms": ("backbone.**",)},
    "scratch": {"lr_scale": {}},
}


def train(experiment: Experiment, task: str, way: str, folder: Path) -> dict[str, Any]:
    """Train the published arch for one task; return metrics of val, parameters and seconds."""
    steps = experiment.training.steps + experiment.retrain.steps
    settings = experiment.retrain.model_copy(update={"steps": steps, **WAYS[way]})
    alone = experiment.model_copy(update={"tasks": {task: experiment.tasks[task]}, "retrain": settings})
    data = open_data(alone)
    run = Run(folder, alone, {task: TaskRecord.of(data[task], ["train"])})
    supernet = build_supernet(alone, run.infos)
    begin_with_initial(alone, supernet, data, CPU)
    chosen = Chosen(f"{way}-{task}", alone.space.named("published"), Sharing.of({}))
    rmtree(run.folder("retrain", chosen.name), ignore_errors=True)
    began, used = time.monotonic(), time.process_time()
    model = retrain(run, chosen, supernet, data=data, device=CPU, from_scratch=way == "scratch")
    return {
        **evaluate_on_val(model, data, CPU)[task],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": steps,
        "seconds": round(time.monotonic() - began),
        "cpu": round(time.process_time() - used),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True, help="folder of results; what is there is not run again")
    options.add_argument("--experiment", default="real_pretrained")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", help="ways and tasks, such as probe/cls,fine-tuned/det; default: all")
    given = options.parse_args()
    torch.set_num_threads(1)
    experiment = load_experiment(given.experiment, seed=given.seed)
    keys = given.only.split(",") if given.only else [f"{way}/{task}" for way in WAYS for task in experiment.tasks]
    path = given.out / f"seed{given.seed}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    given.out.mkdir(parents=True, exist_ok=True)
    for key in keys:
        if key not in found:
            way, task = key.split("/")
            found[key] = train(experiment, task, way, given.out / f"seed{given.seed}")
            write_json(path, found)
        print(key, json.dumps(found[key]), flush=True)


if __name__ == "__main__":
    main()
