"""Lending the tensors of one task to networks."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nasmvt.errors import UserError
from nasmvt.families import family
from nasmvt.space import Arch, SearchSpace, Sharing
from nasmvt.supernet.frames import Cell, Frame, Hold, link
from nasmvt.supernet.kernels import Sides, matrices, transformed
from nasmvt.supernet.lending import Loan, Slice, fits, part
from nasmvt.supernet.skeletons import Group, Skeletons
from nasmvt.supernet.structure import OpaqueError
from nasmvt.tasks.build import buffer_slots, build_skeleton, parameter_slots
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.norms import synchronise
from nasmvt.tasks.task import Task


class Adaptive(NamedTuple):
    """The places of the shared tensor and the score of an adaptive parameter."""

    layer: str
    shared: Cell
    score: Cell
    place: int
    """The task's index into the scores of the layer; 0 if the tasks share one."""


class Lender:
    """Lends the tensors of one task to networks of any arch.

    Args:
        space: the search space.
        task: the task.
        network: its largest network, which holds the specific tensors.
        adaptive: the adaptive parameters, by name.
        sides: the kernels that are transformed, for which the network has matrices.
    """

    def __init__(
        self, space: SearchSpace, task: Task, network: nn.Module, adaptive: Mapping[str, Adaptive], sides: Sides
    ) -> None:
        self._space = space
        self._task = task
        largest = Frame.of(network)
        self._holds = {hold.name: hold for hold in (*largest.parameters, *largest.buffers)}
        self._adaptive = adaptive
        self._sides = sides
        centred = family(space.family).centred_dims
        self._centred = {hold.name: centred(hold.name) for hold in largest.parameters}
        self._finish: Callable[[nn.Module], None] | None = None
        """Changes the modules of networks that were built, before their structure is read."""
        self._skeletons: Skeletons | None = None
        self._loan = Loan()
        self._known: dict[Group, _Borrower] = {}
        """Modules that are reused from step to step; those of the last step are in use until its loan is over."""
        self.opaque: str | None = None
        """Why networks of this family have to be built by their constructor for every arch; None: they need not be."""

    def stored(self, name: str, shared: bool) -> Tensor:
        """Return a parameter or buffer as stored.

        Args:
            name: its name in the network.
            shared: whether to return the shared tensor, where there are two.
        """
        adaptive = self._adaptive.get(name)
        members, leaf = adaptive.shared if adaptive is not None and shared else self._holds[name].cell
        tensor: Tensor = members[leaf]
        return tensor

    def part(self, name: str, shape: torch.Size, shared: bool) -> Tensor:
        """Return the part of a stored parameter or buffer that one of `shape` lies in: a view."""
        return part(self.stored(name, shared), shape, self._centred.get(name, ()))

    def value(self, name: str, shape: torch.Size, shared: bool) -> Tensor:
        """Return the parameter or buffer that a network with one of `shape` has: its part, or what is made of it."""
        steps = self._steps(name, shape)
        given = self.part(name, _widest(shape, steps), shared).detach()
        return transformed(given, (self.stored(matrix, shared).detach() for matrix in steps))

    @property
    def transformations(self) -> set[str]:
        """The names of the matrices that transform kernels."""
        return {matrix for name, sides in self._sides.items() for matrix in matrices(name, sides, sides[-1])}

    def _steps(self, name: str, shape: torch.Size) -> dict[str, int]:
        """Return the matrices that make a parameter of `shape`, with the sides that they make."""
        return matrices(name, self._sides[name], shape[-1]) if name in self._sides else {}

    def lend(self, arch: Arch, sharing: Sharing) -> TaskNetwork:
        """Return a new network of an arch that holds views of the stored tensors."""
        network, _ = self._lend(self._borrowers(arch, {}), sharing)
        return network

    def lend_for_step(self, arch: Arch, sharing: Sharing) -> TaskNetwork:
        """Return such a network, in training mode, for one forward and one backward pass.

        Its modules are reused for the next one as soon as the backward pass has reached the stored tensors.
        """
        if not self._loan.over:
            self._known = {}
        borrowers = self._borrowers(arch, self._known)
        network, self._loan = self._lend(borrowers, sharing)
        if not all(borrower.frame.trains for borrower in borrowers):
            network.train()
        return network

    def synchronise_norms(self) -> None:
        """Let BatchNorms of lent networks norm by the images of all processes from now on."""
        self._finish, self._skeletons, self._known = synchronise, None, {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the modules that are reused: their tensors belong to an autograd graph and can't be copied."""
        return {**vars(self), "_loan": Loan(), "_known": {}}

    def _lend(self, borrowers: "list[_Borrower]", sharing: Sharing) -> tuple[TaskNetwork, Loan]:
        network = link([borrower.frame for borrower in borrowers])
        assert isinstance(network, TaskNetwork)
        loan, shared_layers = Loan(), sharing.shared_by(self._task.name)
        cells: list[Cell] = []
        for borrower in borrowers:
            for (members, leaf), (source, at) in borrower.whole:
                members[leaf] = source[at]
            for (members, leaf), (source, at), cut in borrower.buffers:
                members[leaf] = cut(source[at])
            for cell, (source, at), cut in borrower.slices:
                cells.append(cell)
                loan.add(cut, source[at])
            for cell, (source, at), cut, (layer, (common, key), (scores, name), place) in borrower.choices:
                cells.append(cell)
                loan.add_choice(cut, common[key], source[at], (scores[name], place), layer in shared_layers)
        for (members, leaf), tensor in zip(cells, loan.take(), strict=True):
            members[leaf] = tensor
        for borrower in borrowers:
            for (members, leaf), held in borrower.kernels:
                kernel, *by = held.values()
                members[leaf] = transformed(kernel, by)
            for (members, leaf), name, _ in borrower.frame.ties:
                owner, _, at = name.rpartition(".")
                members[leaf] = network.get_submodule(owner)._parameters[at]
        return network, loan

    @property
    def _device(self) -> torch.device:
        return self.stored(next(iter(self._holds)), False).device

    def _borrowers(self, arch: Arch, known: dict[Group, "_Borrower"]) -> "list[_Borrower]":
        """Return the modules of an arch's network; known ones are reset to the state of new ones."""
        if self._skeletons is None and self.opaque is None:
            try:
                self._skeletons = Skeletons(self._space, self._task, self._finish)
            except OpaqueError as error:
                self.opaque = str(error)
        if self._skeletons is None:
            network = build_skeleton(self._space, self._task, arch, self._device)
            if self._finish is not None:
                self._finish(network)
            return [self._borrower(Frame.of(network))]
        borrowers = []
        for group in self._skeletons.groups(arch, self._device):
            borrower = known.get(group)
            if borrower is None:
                borrower = known[group] = self._borrower(Frame(group.parts))
            else:
                borrower.frame.reset()
            borrowers.append(borrower)
        return borrowers

    def check(self, arch: Arch) -> None:
        """Refuse an arch that can't be built, or is no part of the largest network.

        Raises:
            UserError: naming the tensor.
        """
        network = build_skeleton(self._space, self._task, arch, "meta")
        for slot in (*parameter_slots(network), *buffer_slots(network)):
            self._stored(slot.name, slot.shape)

    def _stored(self, name: str, shape: torch.Size) -> Hold:
        """Return the place of a stored tensor that has a part of `shape`."""
        hold = self._holds.get(name)
        if hold is None or not fits(shape, hold.shape):
            raise UserError(
                f"every subnet must be a leading slice of the largest network, but {name} of task {self._task.name} "
                f"is {tuple(shape)} in a subnet and {'absent' if hold is None else tuple(hold.shape)} in the largest: "
                "change the family"
            )
        return hold

    def _borrower(self, frame: Frame) -> "_Borrower":
        borrower = _Borrower(frame)
        for cell, name, shape in frame.parameters:
            steps = self._steps(name, shape)
            if not steps:
                self._borrow(borrower, cell, name, shape)
                continue
            held = dict.fromkeys((name, *steps))
            self._borrow(borrower, (held, name), name, _widest(shape, steps))
            for matrix, side in steps.items():
                self._borrow(borrower, (held, matrix), matrix, torch.Size((side * side, side * side)))
            borrower.kernels.append((cell, held))
        for cell, name, shape in frame.buffers:
            source, _, stored = self._stored(name, shape)
            if shape == stored:
                borrower.whole.append((cell, source))
            else:
                borrower.buffers.append((cell, source, Slice.of(stored, shape, (), None)))
        return borrower

    def _borrow(self, borrower: "_Borrower", cell: Cell, name: str, shape: torch.Size) -> None:
        """Note that a cell borrows the part of `shape` of a parameter."""
        source, _, stored = self._stored(name, shape)
        adaptive, centred = self._adaptive.get(name), self._centred[name]
        if adaptive is not None:
            borrower.choices.append((cell, source, Slice.of(stored, shape, centred, adaptive.layer), adaptive))
        elif shape != stored:
            borrower.slices.append((cell, source, Slice.of(stored, shape, centred, None)))
        else:
            borrower.whole.append((cell, source))


def _widest(shape: torch.Size, steps: Mapping[str, int]) -> torch.Size:
    """Return the shape of the part that the first of some steps to a kernel of `shape` transforms."""
    return torch.Size((*shape[:-2], *[max(steps.values())] * 2)) if steps else shape


class _Borrower:
    """Modules with the tensors that they borrow: the cell of each, and that of the stored tensor."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.whole: list[tuple[Cell, Cell]] = []
        """Parameters and buffers that are lent as they are stored."""
        self.slices: list[tuple[Cell, Cell, Slice]] = []
        self.choices: list[tuple[Cell, Cell, Slice, Adaptive]] = []
        """Adaptive parameters."""
        self.buffers: list[tuple[Cell, Cell, Slice]] = []
        self.kernels: list[tuple[Cell, dict[str, Any]]] = []
        """Kernels that are made of what is borrowed by name: the middle of the stored one, and matrices."""
