"""From the single-task checkpoints of ViT-MVT's authors to one exported folder with equal tensors stored once.

See `docs/reference-checkpoints.md`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision.models._meta import _COCO_CATEGORIES, _IMAGENET_CATEGORIES

from nasmvt.config import parse
from nasmvt.cost.parameters import add_up
from nasmvt.errors import UserError, listed, nearest
from nasmvt.export import save
from nasmvt.families import ViTMVT, family, vit_mvt_reference
from nasmvt.families.reference import State, check_fit, read_state, rename
from nasmvt.families.vit_mvt_reference import QKV
from nasmvt.heads import mm_reference
from nasmvt.model import MultiTaskModel
from nasmvt.pipeline.merging import Merged, merge
from nasmvt.space import Arch, SearchSpace, Sharing
from nasmvt.tasks.build import build_skeleton, parameter_slots
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.kinds import KINDS
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.task import Task

KIND_OF = {"cls": "classification", "det": "detection", "seg": "segmentation"}
"""The tasks of the authors' checkpoints, by name, and their kinds."""

REPORT = "import.json"

_PREFIX = "model."
_BACKBONE = "backbone."
_DATA: dict[str, dict[str, Any]] = {
    "cls": {"format": "imagefolder", "root": ("IMAGENET", "data/imagenet")},
    "det": {"format": "coco", "root": ("COCO", "data/coco"), "image_size": (800, 1280)},
    "seg": {"format": "ade20k", "root": ("ADE20K", "data/ade20k")},
}
"""Format, environment variable and default of the root, as in `experiments/vit_mvt.yaml`; without a size, it is that
of the position embedding."""
_BATCH = {"cls": 128, "det": 2, "seg": 16}
_KNOWN_CLASSES = {
    "cls": tuple(_IMAGENET_CATEGORIES),
    "det": tuple(name for name in _COCO_CATEGORIES if name not in {"N/A", "__background__"}),
}
_ORIGIN = (
    "Merged by `nasmvt import-reference` from single-task checkpoints of the authors of ViT-MVT (TNNLS 2023): what "
    "the files have in common is stored once, nothing was trained. `import.json` says what was merged, and "
    "`docs/reference-checkpoints.md` of nasmvt how outputs differ from the authors' programs."
)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The file of one task."""

    path: Path
    prefix: str
    """Prefix of every key in the file."""
    state: State
    """Tensors by published name, without the prefix."""
    foreign: State
    """Tensors that lack the prefix."""

    @property
    def backbone(self) -> dict[str, Tensor]:
        """The backbone's tensors by their name below `backbone.`."""
        return {k.removeprefix(_BACKBONE): v for k, v in self.state.items() if k.startswith(_BACKBONE)}

    @property
    def head(self) -> dict[str, Tensor]:
        """The tensors of neck and head."""
        return {k: v for k, v in self.state.items() if not k.startswith(_BACKBONE)}


@dataclass(frozen=True, kw_only=True)
class ImportPlan:
    """Converted checkpoints and what to merge."""

    space: SearchSpace
    """The space, with the fixed sizes of the files."""
    tasks: Mapping[str, Task]
    arch: Arch
    sharing: Sharing
    tensors: Mapping[str, State]
    """For each task, every parameter and buffer of its network."""
    report: dict[str, Any]
    """The content of `import.json`."""

    def model(self) -> MultiTaskModel:
        """Return the merged model, in evaluation mode; tensors are copied."""
        return MultiTaskModel.assemble(
            self.space, self.tasks, self.arch, self.sharing, lambda task, slot, shared: self.tensors[task][slot.name]
        ).eval()


def import_reference(
    files: Mapping[str, Path],
    space: SearchSpace,
    out: Path,
    *,
    qkv: QKV = "specific",
    classes: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Merge checkpoints of two or three tasks into one exported folder; return the report written to `import.json`.

    Args:
        files: checkpoints of the tasks "cls", "det", "seg", all of one arch.
        space: the space of that arch, of the family `vit_mvt`.
        out: the folder, which must not exist.
        qkv: how the weight of qkv is read at a score of at most 0.5: "specific", or "reference" as the authors'
            inference code does.
        classes: class names by task; None for a task: ImageNet's and COCO's where the numbers are theirs.

    Raises:
        UserError: if a file is not such a checkpoint, its tensors are not exactly those of its network, its arch is
            not in the space or differs from the other files', or `out` exists. Nothing is then written.
    """
    _check_arguments(files, space, out, classes or {})
    found = {task: read_checkpoint(files[task]) for task in KIND_OF if task in files}
    plan = plan_import(found, space, qkv=qkv, classes=classes)
    extra = {REPORT: plan.report}
    save(plan.model(), out, metrics={}, split="none", seed=0, origin=_ORIGIN, extra=extra)
    return plan.report


def plan_import(
    found: Mapping[str, Checkpoint],
    space: SearchSpace,
    *,
    qkv: QKV = "specific",
    classes: Mapping[str, Sequence[str]] | None = None,
) -> ImportPlan:
    """Convert checkpoints and find what they have in common; see `import_reference`. Nothing is copied yet."""
    arch = common_arch(found, space)
    patch = int(space.fixed.get("patch_size", 16))
    pixels = {
        task: patch * vit_mvt_reference.position_side(checkpoint.backbone, str(checkpoint.path))
        for task, checkpoint in found.items()
    }
    space = published_space(space, pixels)
    named = classes or {}
    tasks = {task: _task(task, checkpoint, pixels[task], named.get(task)) for task, checkpoint in found.items()}
    networks = {name: build_skeleton(space, task, arch) for name, task in tasks.items()}
    tensors = {task: convert(found[task], networks[task], qkv=qkv) for task in found}
    parameters = {
        task: {slot.name: tensors[task][slot.name] for slot in parameter_slots(network)}
        for task, network in networks.items()
    }
    scores = {task: _scores(checkpoint, networks[task]) for task, checkpoint in found.items()}
    merged = merge(parameters, scores)
    sizes = {task: {name: tensor.numel() for name, tensor in held.items()} for task, held in parameters.items()}
    report = _report(found, networks, merged, sizes, arch, space, qkv)
    return ImportPlan(space=space, tasks=tasks, arch=arch, sharing=merged.sharing, tensors=tensors, report=report)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one file; the prefix `model.` of the published ones is optional.

    Raises:
        UserError: if it can't be read, or does not hold named tensors.
    """
    state = read_state(path)
    prefix = _PREFIX if any(key.startswith(_PREFIX) for key in state) else ""
    return Checkpoint(
        path=path,
        prefix=prefix,
        state={key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)},
        foreign={key: tensor for key, tensor in state.items() if not key.startswith(prefix)},
    )


def common_arch(found: Mapping[str, Checkpoint], space: SearchSpace) -> Arch:
    """Return the arch that all files have, by their shapes.

    Raises:
        UserError: if an arch is not in the space, or the files' archs differ.
    """
    archs = {task: vit_mvt_reference.infer_arch(c.backbone, space, str(c.path)) for task, c in found.items()}
    first, arch = next(iter(archs.items()))
    for task, other in archs.items():
        unlike = [name for name in space.choices if arch[name] != other[name]]
        if unlike:
            name = unlike[0]
            raise UserError(
                f"the checkpoints must be of one arch, but {found[first].path} has {name}={arch[name]} and "
                f"{found[task].path} {name}={other[name]}: give files of one subnet"
            )
    return arch


def published_space(space: SearchSpace, pixels: Mapping[str, int]) -> SearchSpace:
    """Return a space with the norm epsilon of the published subnets, and position tables as the files have them."""
    position = {KIND_OF[task]: [side, side] for task, side in pixels.items()}
    fixed = {**space.fixed, "norm_eps": vit_mvt_reference.NORM_EPS, "position_size": position}
    return space.model_copy(update={"fixed": fixed})


def convert(checkpoint: Checkpoint, network: TaskNetwork, *, qkv: QKV = "specific") -> dict[str, Tensor]:
    """Turn a checkpoint into the tensors of our task network, which may be on `meta`.

    Raises:
        UserError: if a tensor is missing, surplus or of another shape, by its name in the file.
    """
    backbone, source = _backbone(network), str(checkpoint.path)
    given = {_BACKBONE + key: tensor for key, tensor in vit_mvt_reference.kept(checkpoint.backbone).items()}
    wanted = {_BACKBONE + k: v for k, v in vit_mvt_reference.wanted(backbone, checkpoint.backbone).items()}
    names = _head_names(network)
    ours = network.state_dict()
    plain = {key: ours[name] for name, key in names.items()}
    wanted |= vit_mvt_reference.with_variants(plain, set(mm_reference.ADAPTIVE.get(_kind(network), ())))
    check_fit(
        {**{checkpoint.prefix + k: v for k, v in {**given, **checkpoint.head}.items()}, **checkpoint.foreign},
        {checkpoint.prefix + key: tensor for key, tensor in wanted.items()},
        source,
    )
    body = vit_mvt_reference.convert(checkpoint.backbone, backbone, qkv=qkv, source=source)
    head = {
        name: mm_reference.laid_out(name, vit_mvt_reference.chosen(checkpoint.head, key)).to(ours[name].dtype)
        for name, key in names.items()
    }
    return {_BACKBONE + name: tensor for name, tensor in body.items()} | head


def _check_arguments(
    files: Mapping[str, Path], space: SearchSpace, out: Path, classes: Mapping[str, Sequence[str]]
) -> None:
    for task in [*files, *classes]:
        if task not in KIND_OF:
            raise UserError(f"there is no task {task!r} to import{nearest(task, KIND_OF)} (tasks: {listed(KIND_OF)})")
    if len(files) < 2:
        raise UserError(
            f"a merged model needs the checkpoints of two or three tasks, but there is "
            f"{listed(files) or 'none'}: add --cls, --det or --seg"
        )
    if not classes.keys() <= files.keys():
        unlike = listed(task for task in classes if task not in files)
        raise UserError(f"--classes names the classes of tasks that are imported, but {unlike} is not: leave it out")
    if out.exists():
        raise UserError(f"{out} exists: give another --out, or delete it")
    if space.family != "vit_mvt":
        raise UserError(
            f"the checkpoints are of the family vit_mvt, but {space.name} is of {space.family}: give another"
        )
    family(space.family).check(space)


def _task(name: str, checkpoint: Checkpoint, pixels: int, names: Sequence[str] | None) -> Task:
    """Return the task that a checkpoint was trained for."""
    kind = KIND_OF[name]
    key, others = mm_reference.CLASSIFIER[kind]
    tensor = checkpoint.state.get(key)
    count = tensor.shape[0] - others if tensor is not None and tensor.ndim else 0
    if count < 1:
        raise UserError(
            f"{checkpoint.path} must hold {key} with a row per class, but does not: is it a {kind} checkpoint?"
        )
    known = _KNOWN_CLASSES.get(name, ())
    classes = tuple(names or (known if len(known) == count else (f"class {label}" for label in range(count))))
    if len(classes) != count or len(set(classes)) < count:
        raise UserError(
            f"{checkpoint.path} has {count} classes, but {len(set(classes))} different names are given for {name}: "
            "write one name per line, in the order of the labels"
        )
    data = {"image_size": (pixels, pixels), **_DATA[name], "classes": classes}
    variable, default = data["root"]
    data["root"] = Path(os.environ.get(variable) or default).expanduser().absolute()
    values = {
        "kind": kind,
        "data": data,
        "head": mm_reference.SETTINGS[kind],
        "batch_size": _BATCH[name],
        "eval_batch_size": _BATCH[name],
    }
    info = replace(KINDS.get(kind).nominal, classes=classes)
    return Task(name=name, config=parse(TaskConfig, values, f"the task {name}"), info=info)


def _backbone(network: TaskNetwork) -> ViTMVT:
    assert isinstance(network.backbone, ViTMVT)  # by the family of the space
    return network.backbone


def _kind(network: TaskNetwork) -> str:
    names = {"LinearHead": "classification", "MaskRCNNHead": "detection", "UPerNetHead": "segmentation"}
    return names[type(network.head).__name__]


def _head_names(network: TaskNetwork) -> dict[str, str]:
    """Return the published key of every tensor of a network's neck and head."""
    ours = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(_BACKBONE)}
    return dict(zip(ours, rename(ours, mm_reference.NAMES[_kind(network)]), strict=True))


def _scores(checkpoint: Checkpoint, network: TaskNetwork) -> dict[str, bool]:
    """Return, for every adaptive layer of our backbone, whether the file says that it is shared."""
    state = checkpoint.backbone
    layers = {
        (name.rpartition(".")[0], key.rpartition(".")[0])
        for name, key in vit_mvt_reference.published_names(_backbone(network)).items()
    }
    return {
        _BACKBONE + ours: vit_mvt_reference.is_shared(state, theirs)
        for ours, theirs in layers
        if f"{theirs}.score" in state
    }


def _report(
    found: Mapping[str, Checkpoint],
    networks: Mapping[str, TaskNetwork],
    merged: Merged,
    sizes: Mapping[str, Mapping[str, int]],
    arch: Arch,
    space: SearchSpace,
    qkv: QKV,
) -> dict[str, Any]:
    stored = {task: vit_mvt_reference.parameters_in(c.state) for task, c in found.items()}
    alone = {task: sum(held.values()) for task, held in sizes.items()}
    count = add_up(sizes, merged.sharing)
    unused = {}
    for task, checkpoint in found.items():
        body = vit_mvt_reference.unused(checkpoint.backbone, _backbone(networks[task]), qkv)
        head = vit_mvt_reference.unused(checkpoint.head)
        unused[task] = {
            rule: {
                **{f"{checkpoint.prefix}{_BACKBONE}{key}": size for key, size in body.get(rule, {}).items()},
                **{f"{checkpoint.prefix}{key}": size for key, size in head.get(rule, {}).items()},
            }
            for rule in [*body, *(rule for rule in head if rule not in body)]
        }
    return {
        "space": space.name,
        "arch": arch.to_dict(),
        "qkv": qkv,
        "files": {task: Path(checkpoint.path).name for task, checkpoint in found.items()},
        "parameters": {
            "in the files": {"total": sum(stored.values()), **stored},
            "networks alone": {"total": sum(alone.values()), **alone},
            "merged": count.to_dict(),
        },
        "merged": merged.summary(sizes),
        "layers": {layer: verdict.to_dict() for layer, verdict in merged.verdicts.items()},
        "unused": unused,
    }
