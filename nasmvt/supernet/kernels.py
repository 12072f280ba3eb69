"""Learned transformations of kernels: what makes the middle of a large kernel a smaller one.

As in once-for-all (Cai et al., ICLR 2020, arXiv:1908.09791, section 3.3): one matrix for each layer and each step to
the next smaller side (7 to 5, 5 to 3), which all channels have in common, the identity at first. A kernel of 3 in a
space of 3, 5 and 7 is the middle of the transformed middle of the stored one. The matrices are parameters of their
layer: tasks that share it share them. A network has transformed kernels, and no matrices.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import isqrt

import torch
from torch import Tensor, nn

from nasmvt.errors import UserError
from nasmvt.families import family
from nasmvt.space import Arch, SearchSpace
from nasmvt.tasks.build import build_skeleton, parameter_slots
from nasmvt.tasks.task import Task

Sides = Mapping[str, Sequence[int]]
"""By the name of a kernel, the sides that networks have it in, the largest first."""


def add_transformations(space: SearchSpace, tasks: Mapping[str, Task], networks: Mapping[str, nn.Module]) -> Sides:
    """Give each layer of the largest networks that has kernels of several sides its matrices.

    Args:
        space: the search space.
        tasks: the tasks by name.
        networks: their largest networks, which get the matrices as parameters.

    Returns:
        The kernels' sides.

    Raises:
        UserError: if the space has no kernels of several sides.
    """
    sides: dict[str, set[int]] = {}
    for arch in _every_option(space):
        for task in tasks.values():
            for slot in parameter_slots(build_skeleton(space, task, arch, "meta")):
                if family(space.family).centred_dims(slot.name) == (2, 3):
                    sides.setdefault(slot.name, set()).add(slot.shape[-1])
    several = {name: sorted(its, reverse=True) for name, its in sides.items() if len(its) > 1}
    if not several:
        raise UserError(
            f"supernet.kernel_transformations needs a family with kernels of several sides, but {space.name} has none: "
            "leave it out"
        )
    for name, its in several.items():
        owner, _, _ = name.rpartition(".")
        for network in networks.values():
            for matrix, side in matrices(name, its, its[-1]).items():
                network.get_submodule(owner).register_parameter(
                    matrix.rpartition(".")[2], nn.Parameter(torch.eye(side * side))
                )
    return several


def matrices(kernel: str, sides: Sequence[int], side: int) -> dict[str, int]:
    """Return the names of the matrices that make a kernel of `side`, in their order, with the side that each makes.

    Args:
        kernel: the name of the kernel.
        sides: the sides that it occurs in, the largest first.
        side: one of these.
    """
    return {f"{kernel}_{large}to{small}": small for large, small in pairwise(sides) if small >= side}


def transformed(kernel: Tensor, by: Iterable[Tensor]) -> Tensor:
    """Return a kernel (..., s', s') made of one (..., s, s) by matrices (s' * s', s' * s') of ever smaller s'.

    Sums are those of each row by itself, whose order depends on no number of threads and no alignment, as that of a
    matrix product may: a candidate and its export are transformed apart from each other.
    """
    for matrix in by:
        side = isqrt(len(matrix))
        skipped = (kernel.shape[-1] - side) // 2
        middle = kernel[..., skipped : skipped + side, skipped : skipped + side].flatten(-2)
        kernel = (middle.unsqueeze(-2) * matrix).sum(-1).unflatten(-1, (side, side))
    return kernel


def _every_option(space: SearchSpace) -> list[Arch]:
    """Return archs of all blocks in which every option of every choice occurs in each."""
    counts = {choice.per for choice in space.choices.values()}
    places = max(len(choice.options) for choice in space.choices.values())
    return [
        space.build(lambda c, name, block, p=place: c.options[-1 if name in counts else min(p, len(c.options) - 1)])  # type: ignore[misc]
        for place in range(places)
    ]
