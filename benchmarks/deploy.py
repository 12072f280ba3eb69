"""Files for ONNX Runtime against PyTorch: every family, every head, on real images.

Networks are the largest of their space, freshly drawn, BatchNorm statistics included, so that nothing is equal by
chance. For each: the worst difference over single images, over batches of 1, 2 and 7, and, with --any-size, on a second
canvas; the same of PyTorch against itself in float64 (`own`), the rounding that the network amplifies wherever it runs;
and images per second of ONNX Runtime over those of PyTorch, both with one thread, batch 1.

    python benchmarks/deploy.py --images 20
    python benchmarks/deploy.py --spaces lvt_nano --heads retinanet cascade_mask_rcnn --any-size
"""

import argparse
import copy
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from nasmvt.config import parse
from nasmvt.data import read_picture
from nasmvt.data.transforms import EvalTransform
from nasmvt.data.types import DataInfo, ImageInfo
from nasmvt.errors import UserError
from nasmvt.export.onnx_graph import to_onnx, write_graphs
from nasmvt.export.runtimes import OnnxProgram, RuntimeNetwork
from nasmvt.export.tracing import StaticNetwork, trace
from nasmvt.space import load_space
from nasmvt.tasks.build import build_network
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.task import Task

SPACES = (
    *("vit_mvt_nano", "lvt_nano", "mpvit_nano", "scalable_vit_nano", "vitae_v2_nano"),
    *("vit_tiny", "convnext_tiny", "efficientnet_lite0"),
)
DATA = {
    "classification": "cls_cifar10",
    "detection": "det_pennfudan",
    "segmentation": "seg_camvid",
    "panoptic": "det_pennfudan",
}
CLASSES = tuple("abcdef")
REGIONS = {
    "width": 32,
    "anchor_scale": 4,
    "box_convs": 1,
    "box_hidden": 64,
    "mask_convs": 1,
    "pre_nms": [100, 60],
    "post_nms": [50, 30],
    "detections": 20,
}
DENSE = {"type": "retinanet", "width": 32, "anchor_scale": 3, "pre_nms": 60, "detections": 20}
DETR = {
    "type": "deformable_detr",
    "width": 32,
    "groups": 8,
    "heads": 4,
    "points": 2,
    "hidden": 64,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "queries": 20,
    "detections": 20,
}
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("classification", {"type": "linear"}),
    "mask_rcnn": ("detection", {"type": "mask_rcnn", **REGIONS}),
    "upernet": ("segmentation", {"type": "upernet", "channels": 32, "pool_scales": [1, 2, 4], "aux_channels": 16}),
    "panoptic_fpn": ("panoptic", {"type": "panoptic_fpn", **REGIONS, "score_threshold": 0.1}),
    "semantic_fpn": ("segmentation", {"type": "semantic_fpn"}),
    "segformer": ("segmentation", {"type": "segformer"}),
    "retinanet": ("detection", {"convention": "detectron2", **DENSE}),
    "retinanet_mm": ("detection", {"convention": "mmdetection", **DENSE}),
    "mask_rcnn_d2": ("detection", {"type": "mask_rcnn", "convention": "detectron2", **REGIONS}),
    "mask_rcnn_mm": ("detection", {"type": "mask_rcnn", "convention": "mmdetection", **REGIONS}),
    "cascade": ("detection", {"type": "cascade_mask_rcnn", **REGIONS}),
    "cascade_d2": ("detection", {"type": "cascade_mask_rcnn", "convention": "detectron2", **REGIONS}),
    "detr": ("detection", DETR),
    "detr_two_stage": ("detection", {**DETR, "refinement": True, "two_stage": True}),
}
"""Kind and settings of every head."""
LAST = ("logits", "predictor", "bbox_pred", "cls_score")
"""Parts of the names of layers that predict; they start so small that all classes are as good as equal."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="+", default=SPACES)
    parser.add_argument("--heads", nargs="+", default=list(HEADS), choices=list(HEADS))
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("NASMVT_SHARED", "../shared"), "data"))
    parser.add_argument("--any-size", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'space':18} {'head':14} trace s  onnx s   single  batches 2nd size      own x speed  found")
    for head in options.heads:
        for space in options.spaces:
            print(f"{space:18} {head:14} {row(space, head, options)}", flush=True)


def row(space: str, head: str, options: argparse.Namespace) -> str:
    """Measure one network; return its part of the table."""
    torch.manual_seed(options.seed)
    task = task_of(head)
    network = build_network(load_space(space), task, load_space(space).largest).eval()
    stir(network)
    images, infos = pictures(task, options.data / DATA[task.info.kind], options.images)
    with tempfile.TemporaryDirectory() as folder:
        try:
            start = time.perf_counter()
            program = trace(network, task.nominal_size, any_size=options.any_size)
            traced = time.perf_counter()
            write_graphs({head: to_onnx(program)}, Path(folder))
            written = time.perf_counter()
        except UserError as error:
            return f"refused: {error}"
        served = RuntimeNetwork(network, OnnxProgram(Path(folder) / f"{head}.onnx", 1))
        sets = [(images[i : i + 1], infos[i : i + 1]) for i in range(len(images))]
        sets += [(images[:n], infos[:n]) for n in (1, 2, 7)]
        if options.any_size:
            wide = torch.cat((images, images[:, :, :, : images.shape[3] // 2]), dim=3)[:2]
            sets.append((wide, infos[:2]))
        found = [differ(served, *given) for given in sets]
        single, batches = max(found[: len(images)]), max(found[len(images) : len(images) + 3])
        second = f"{found[-1]:.1e}" if options.any_size else "-"
        exact = RuntimeNetwork(network, in_double(network))
        own = max(differ(exact, *given) for given in sets)
        ratio = seconds(lambda: network.predict(images[:1])) / seconds(lambda: served.predict(images[:1]))
        count = served.outputs(images, infos).get("count")
    times = f"{traced - start:7.1f} {written - traced:7.1f}"
    objects = "-" if count is None else f"{count.float().mean():.1f}"
    return f"{times} {single:8.1e} {batches:8.1e} {second:>8} {own:8.1e} {ratio:7.2f} {objects:>6}"


def task_of(head: str) -> Task:
    """Return a task of six classes on images of 64 pixels."""
    kind, settings = HEADS[head]
    values = {"kind": kind, "data": {"image_size": 64}, "head": settings}
    info = DataInfo(
        kind=kind, classes=CLASSES, has_masks=kind in ("detection", "panoptic"), things=3 * (kind == "panoptic")
    )
    return Task(name=head, config=parse(TaskConfig, values, head), info=info)


def pictures(task: Task, root: Path, count: int) -> tuple[torch.Tensor, list[ImageInfo]]:
    """Return real images, placed on the task's canvas."""
    files = sorted(path for path in root.rglob("*") if path.suffix in {".jpg", ".png"} and "annot" not in str(path))
    place = EvalTransform(task.config.data)
    placed = [place(read_picture(path), i) for i, path in enumerate(files[:: max(len(files) // count, 1)][:count])]
    return torch.stack([image for image, _ in placed]), [info for _, info in placed]


def stir(network: TaskNetwork) -> None:
    """Move norms, biases and statistics away from what they start with, weights a little, and let classes differ.

    Weights that move far make attention and proposals so steep that float32 and float64 find other objects.
    """
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        size = 0.1
        if tensor.ndim > 1:
            last = name.startswith("head.") and any(part in name for part in LAST)
            size = tensor[0].numel() ** -0.5 if last else 0.2 * float(tensor.detach().std(correction=0))
        noise = size * torch.randn_like(tensor)
        tensor.data.add_(noise.abs() if "running_var" in name else noise)


def differ(served: RuntimeNetwork, images: torch.Tensor, infos: list[ImageInfo]) -> float:
    return served.network.disagreement(served.outputs(images, infos), images, infos)


def in_double(network: TaskNetwork) -> Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """Return what computes a network's outputs in float64."""
    program = StaticNetwork(copy.deepcopy(network).double())

    def compute(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        with torch.inference_mode():
            outputs = program(**{name: cast(tensor, torch.float64) for name, tensor in inputs.items()})
        return {name: cast(tensor, torch.float32) for name, tensor in outputs.items()}

    return compute


def cast(tensor: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    """Return a tensor of floating point numbers in a precision; others as they are."""
    return tensor.to(kind) if tensor.is_floating_point() else tensor


def seconds(work: Callable[[], object]) -> float:
    """Return the shortest of ten calls, after two."""
    times = []
    for _ in range(12):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[2:])


if __name__ == "__main__":
    main()
