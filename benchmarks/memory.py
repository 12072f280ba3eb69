"""What a supernet's training step takes in memory: plain, in parts, recomputed, in 16 bits. Measured on the CPU.

The recipe's networks, batches and sizes of images, on drawn images: no data set is needed, but as much memory as is
printed, one setting after the other.

    PYTHONPATH=. python benchmarks/memory.py [vit_mvt] [--only plain bf16] [--set tasks.det.batch_size=1]
"""

import argparse

from nasmvt.pipeline.experiment import load_experiment
from nasmvt.pipeline.memory import step_memory

SETTINGS = {
    "plain": (),
    "accumulate 2": ("training.accumulate=2",),
    "activation_checkpointing": ("training.activation_checkpointing=true",),
    "bf16": ("training.precision=bf16",),
    "all three": ("training.accumulate=2", "training.activation_checkpointing=true", "training.precision=bf16"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="?", default="vit_mvt")
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--set", nargs="*", default=[], dest="changes", help="further settings, key=value")
    given = parser.parse_args()
    tasks = load_experiment(given.experiment, given.changes).tasks
    drawn = [
        f"tasks.{name}.data.{change}"
        for name in tasks
        for change in ("format=shapes", "root=null", "train_images=16", "val_images=4", "workers=0")
    ]
    for name in given.only:
        memory = step_memory(load_experiment(given.experiment, [*drawn, *given.changes, *SETTINGS[name]]))
        kept = memory.weights + memory.gradients + memory.optimizer
        passes = ", ".join(f"{task} {size / 1e9:.2f}" for task, size in memory.activations.items())
        print(f"{name}: {memory.total / 1e9:.2f} GB; kept {kept / 1e9:.2f}, passes: {passes}", flush=True)


if __name__ == "__main__":
    main()
