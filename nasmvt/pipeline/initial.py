"""Reading the weights that a run begins with: from timm, a file, an exported folder, or another run."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from nasmvt.errors import UserError, listed, nearest
from nasmvt.export import load
from nasmvt.families import family
from nasmvt.families.layers import Classifier
from nasmvt.families.reference import Converter, State, misfits, read_state
from nasmvt.families.registry import RECOMPUTING
from nasmvt.model import MultiTaskModel
from nasmvt.pipeline.run import Run
from nasmvt.space import Arch, SearchSpace
from nasmvt.supernet import InitialConfig, Supernet
from nasmvt.supernet.initial import Initial, digest_of
from nasmvt.tasks.meta import OnMeta
from nasmvt.tasks.task import Task
from nasmvt.tasks.trainable import name_of
from nasmvt.training.checkpoint import Checkpoints, load_weights

_log = logging.getLogger(__name__)

_BACKBONE = "backbone."
_HEAD = "head."
_LARGEST = "largest"
_ROUNDING = 1e-3
"""Of the largest feature: what other orders of sums may make, in float32, in a network of a hundred layers."""
_OF_TRAINING = {"drop_path", *RECOMPUTING}
"""Fixed sizes that no tensor depends on."""


def read_initial(config: InitialConfig, supernet: Supernet) -> Initial:
    """Read weights to begin with, for the tasks of a supernet.

    Raises:
        UserError: if they can't be read, or are of another family or of sizes that the space does not have.
    """
    path = Path(config.weights)
    if config.model is not None:
        return _published(_from_timm(config.model, config.arch, supernet), config.model, config.arch, supernet)
    if Run.is_at(path):
        run = Run.open(path)
        earlier = Supernet(run.experiment.space, run.tasks, run.experiment.supernet)
        load_weights(earlier, Checkpoints(run.supernet_files.checkpoint), run.experiment.training.steps)
        if earlier.config.kernel_transformations and not supernet.config.kernel_transformations:
            raise UserError(
                f"kernels of {path} are made by learned transformations, which initial weights bring along, but "
                "supernet.kernel_transformations is off: turn it on"
            )
        shared = {name_of(key): tensor.detach() for key, tensor in earlier.shared.items()}
        matrices = {
            name: {matrix: lender.stored(matrix, False).detach() for matrix in lender.transformations}
            for name, lender in earlier.lenders.items()
        }
        return _of_model(earlier.materialize(earlier.space.largest), shared, str(path), supernet, matrices)
    if path.is_dir():
        return _of_model(load(path).model, {}, str(path), supernet)
    return _published(read_state(path), str(path), config.arch, supernet)


# -- published networks ---------------------------------------------------------------------------


def _from_timm(model: str, arch: str | None, supernet: Supernet) -> State:
    """Return the tensors of a network that timm publishes; whether they fit is checked before they are downloaded."""
    name = model.partition(".")[0]
    if not timm.is_model(name):
        known = timm.list_models()
        raise UserError(f"initial.model must be a name that timm knows, not {model!r}{nearest(name, known)}")
    with torch.device("meta"):
        skeleton = timm.create_model(name).state_dict()
    fitting = _fitting_arch(skeleton, f"timm's {model}", arch, supernet)
    try:
        network = timm.create_model(model, pretrained=True)
    except OSError:  # of huggingface_hub: no connection, and no copy in the cache
        raise UserError(
            f"the weights of {model} can be neither downloaded nor found in timm's cache: connect to the network once, "
            "or give initial.weights a file"
        ) from None
    except RuntimeError as error:
        raise UserError(f"timm publishes no weights under the name {model!r} ({error}): give another tag") from None
    _check_features(network.eval(), model, _arch(supernet.space, fitting), supernet)
    _warn_of_pixels(network.pretrained_cfg, model, supernet)
    return network.state_dict()


def _check_features(network: Any, model: str, arch: Arch, supernet: Supernet) -> None:
    """Compare what is handed to the classifier with what the family computes from the same tensors, for one image.

    Networks that differ in an activation, a padding or an epsilon have the same tensors.

    Raises:
        UserError: if they differ.
    """
    space, size = supernet.space, tuple(network.pretrained_cfg["input_size"][1:])
    backbone = family(space.family).backbone(space, arch, kind="classification", image_size=size).eval()
    state = _converter(space)(network.state_dict(), Classifier(backbone, nn.Identity()))
    wanted = backbone.state_dict()
    backbone.load_state_dict({name: state[f"{_BACKBONE}{name}"] for name in wanted})
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        ours = backbone(image)[-1].mean((2, 3))
        theirs = network.forward_head(network.forward_features(image), pre_logits=True)
    off = float((ours - theirs).abs().max() / theirs.abs().max()) if ours.shape == theirs.shape else 1.0
    if off > _ROUNDING:
        raise UserError(
            f"the space must compute what {model} computes, but with its tensors {space.name} computes other features "
            f"(off by {off:.0%} of the largest): fix the activation, padding, epsilon or pooling in its fixed sizes"
        )


def _warn_of_pixels(known: Mapping[str, Any], model: str, supernet: Supernet) -> None:
    """Warn of tasks whose images are normalised otherwise than those that a network was trained on."""
    for name, task in supernet.tasks.items():
        data = task.config.data
        if (data.mean, data.std) != (tuple(known["mean"]), tuple(known["std"])):
            _log.warning(
                "%s was trained on images of mean %s and std %s, unlike those of task %s: set data.mean and data.std",
                *(model, known["mean"], known["std"], name),
            )


def _published(state: State, source: str, arch: str | None, supernet: Supernet) -> Initial:
    """Convert published tensors for every task."""
    space = supernet.space
    name, convert = _fitting_arch(state, source, arch, supernet), _converter(space)
    names = {id(tensor): key for key, tensor in state.items()}
    tensors: dict[str, State] = {}
    offered: dict[str, str] = {}
    for task in supernet.tasks.values():
        network = _classifier(space, task, _arch(space, name), task.config.kind)
        converted, wanted = convert(state, network), network.state_dict()
        offered |= {key: names.get(id(tensor), key) for key, tensor in converted.items()}
        tensors[task.name] = {key: tensor for key, tensor in converted.items() if key in wanted}
    used = {key for held in tensors.values() for key in held}
    reasons = {
        published: "of the classifier" if key.startswith(_HEAD) else "which these tasks' networks do not have"
        for key, published in offered.items()
        if key not in used
    }
    return Initial(source=f"{source} (arch {name})", tensors=tensors, digest=digest_of(state), left_out=reasons)


def _fitting_arch(state: State, source: str, arch: str | None, supernet: Supernet) -> str:
    """Return the name of the arch of a space that published tensors are of, by the backbone of a classifier.

    Raises:
        UserError: if they are of none.
    """
    space, convert = supernet.space, _converter(supernet.space)
    task = next(iter(supernet.tasks.values()))
    problems = {}
    for name in [arch] if arch is not None else [*space.archs, _LARGEST]:
        network = _classifier(space, task, _arch(space, name), "classification")
        found = {key: tensor for key, tensor in convert(state, network).items() if not key.startswith(_HEAD)}
        problems[name] = misfits(found, network.state_dict())
        if not problems[name]:
            return name
    name = min(problems, key=lambda name: len(problems[name]))
    raise UserError(
        f"initial weights must be those of a network of the space, but {source} is none of {space.name} "
        f"({listed(problems)}): of {name} it has {problems[name]}; give other weights, or a space that holds them"
    )


def _classifier(space: SearchSpace, task: Task, arch: Arch, kind: str) -> Classifier:
    """Return the skeleton of an arch's backbone for a kind of task, as converters ask for it."""
    with OnMeta():
        backbone = family(space.family).backbone(space, arch, kind=kind, image_size=task.size(space, space.largest))
    return Classifier(backbone, nn.Identity())


def _arch(space: SearchSpace, name: str) -> Arch:
    return space.largest if name == _LARGEST else space.named(name)


def _converter(space: SearchSpace) -> Converter:
    convert = family(space.family).convert
    if convert is None:
        raise UserError(
            f"the family {space.family} knows no published names: give a folder that nasmvt exported, or a run, as "
            "initial.weights"
        )
    return convert


# -- earlier models of nasmvt ---------------------------------------------------------------------


def _of_model(
    model: MultiTaskModel, shared: State, source: str, supernet: Supernet, matrices: Mapping[str, State] | None = None
) -> Initial:
    """Take the tensors of another model's tasks: for each task the one of its name, of its kind, or the first.

    Args:
        model: the model.
        shared: tensors that tasks of a supernet share.
        source: where they come from.
        supernet: what is to be filled.
        matrices: for each task, the transformations of kernels, which no model has, by name.
    """
    matrices = matrices or {}
    theirs, ours = ({"family": s.family, **s.fixed} for s in (model.space, supernet.space))
    for key in sorted((theirs.keys() | ours.keys()) - _OF_TRAINING, key="family".__ne__):
        if theirs.get(key) != ours.get(key):
            raise UserError(
                f"initial weights must be of the space's family and fixed sizes, but {source} has {key} = "
                f"{theirs.get(key)}, not {ours.get(key)}: give other weights, or change the space"
            )
    tensors: dict[str, State] = {}
    left_out: dict[str, str] = {}
    for name, task in supernet.tasks.items():
        alike = [other for other, held in model.tasks.items() if held.config.kind == task.config.kind]
        chosen = name if name in alike else (alike or list(model.tasks))[0]
        state = model.task(chosen).state_dict() | dict(matrices.get(chosen, {}))
        if chosen not in alike:
            known = supernet.networks[name].state_dict()
            left_out |= {f"{chosen}.{key}": "which tasks of other kinds have" for key in state if key not in known}
            state = {key: tensor for key, tensor in state.items() if key in known and key.startswith(_BACKBONE)}
        tensors[name] = state
    return Initial(
        source=source,
        tensors=tensors,
        shared=shared,
        digest=digest_of(
            {
                **model.tensors(),
                **{f"shared/{key}": tensor for key, tensor in shared.items()},
                **{f"{task}.{key}": tensor for task, state in matrices.items() for key, tensor in state.items()},
            }
        ),
        left_out=left_out,
    )
