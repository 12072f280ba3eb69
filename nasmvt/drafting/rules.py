"""How operations pass on the dimensions of tensors: one rule per kind of operation of ATen.

A rule joins the dimensions that the operation takes for one, and returns those of its results; None: not followed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from nasmvt.drafting.factors import Dim, Factor, factors, fix, join, regroup

if TYPE_CHECKING:
    from nasmvt.drafting.tracing import Trace

MAP = "is the size of the map"


@dataclass(frozen=True)
class Call:
    """A call of an operation."""

    trace: "Trace"
    named: dict[str, Any]
    """Its arguments by name."""
    given: list[Tensor]
    """The tensors among them."""
    made: list[Tensor]

    def dims(self, name: str | int) -> list[Dim]:
        """Return the dimensions of a tensor, by the argument's name or its place among the tensors."""
        return self.trace.dims(self.given[name] if isinstance(name, int) else self.named[name])

    def at(self, name: str = "dim") -> int:
        """Return the argument that names a dimension of the first tensor."""
        place: int = self.named[name]
        return place % max(self.given[0].ndim, 1)


Dims = list[list[Dim]] | None
Rule = Callable[[Call], Dims]


def pointwise(call: Call) -> Dims:
    """Join dimensions that are broadcast with each other."""
    out = call.made[0]
    found: list[Dim] = []
    for place in range(-out.ndim, 0):
        alike = [
            call.trace.dims(tensor)[place]
            for tensor in call.given
            if tensor.ndim >= -place and tensor.shape[place] == out.shape[place]
        ]
        for other in alike[1:]:
            join(alike[0], other)
        found.append(alike[0] if alike else [])
    return [found for _ in call.made]


def _same(call: Call) -> Dims:
    return [list(call.dims(0)) for _ in call.made]


def _restrided(call: Call) -> Dims:
    return _same(call) if call.made[0].shape == call.given[0].shape else None


def _moved_along(call: Call) -> Dims:
    for place in call.named["dims"]:
        fix(call.dims(0)[place], "is rolled or mirrored")
    return _same(call)


def _view(call: Call) -> Dims:
    return [regroup(call.dims(0), call.made[0].shape)]


def _permute(call: Call) -> Dims:
    return [[call.dims(0)[place] for place in call.named["dims"]]]


def _transpose(call: Call) -> Dims:
    dims = list(call.dims(0))
    a, b = call.at("dim0"), call.at("dim1")
    dims[a], dims[b] = dims[b], dims[a]
    return [dims]


def _t(call: Call) -> Dims:
    return [list(reversed(call.dims(0)))]


def _resized_by_ones(call: Call) -> Dims:
    """Squeezing, unsqueezing, expanding: dimensions of length 1 come, go or are repeated."""
    rest = [dim for dim, size in zip(call.dims(0), call.given[0].shape, strict=True) if size > 1]
    given = [size for size in call.given[0].shape if size > 1]
    found: list[Dim] = []
    for size in reversed(call.made[0].shape):
        if size > 1 and given and given[-1] == size:
            given.pop()
            found.append(rest.pop())
        else:
            found.append([] if size == 1 else [Factor(size, "is repeated")])
    if rest:
        return None
    return [found[::-1]]


def _reduced(call: Call) -> Dims:
    """Sums, means, norms along some dimensions."""
    named, given = call.named.get("dim"), call.given[0]
    if named is None or named == []:
        return [[] for _ in call.made] if call.made[0].ndim == 0 else None
    gone = {place % given.ndim for place in ([named] if isinstance(named, int) else named)}
    kept = call.named.get("keepdim", False)
    dims: list[Dim] = [[] if i in gone else dim for i, dim in enumerate(call.dims(0)) if kept or i not in gone]
    return [dims for _ in call.made]


def _select(call: Call) -> Dims:
    at = call.at()
    fix(call.dims(0)[at], "is picked from")
    return [[dim for place, dim in enumerate(call.dims(0)) if place != at]]


def _slice(call: Call) -> Dims:
    dims, at = list(call.dims(0)), call.at()
    if call.made[0].shape[at] != call.given[0].shape[at]:
        fix(dims[at], "is cut")
        dims[at] = [Factor(call.made[0].shape[at], "is cut out of another")]
    return [dims]


def _unbind(call: Call) -> Dims:
    at = call.at()
    fix(call.dims(0)[at], "is taken apart")
    return [[dim for place, dim in enumerate(call.dims(0)) if place != at] for _ in call.made]


def _split(call: Call) -> Dims:
    at, dims = call.at(), call.dims(0)
    sizes = {tensor.shape[at] for tensor in call.made}
    if len(sizes) > 1:
        fix(dims[at], "is divided into unequal parts")
        return [
            [*dims[:at], [Factor(tensor.shape[at], "is cut out of another")], *dims[at + 1 :]] for tensor in call.made
        ]
    number, part = regroup([dims[at]], (len(call.made), sizes.pop()))
    fix(number, "is the number of equal parts")
    return [[*dims[:at], part, *dims[at + 1 :]] for _ in call.made]


def _concatenated(call: Call) -> Dims:
    """Equal dimensions make one of several equal parts; others are concatenated for good."""
    tensors = [tensor for tensor in call.given if tensor.numel() or tensor.ndim > 1]
    at = call.named["dim"] % tensors[0].ndim
    every = [call.trace.dims(tensor) for tensor in tensors]
    found: list[Dim] = []
    for place, dim in enumerate(every[0]):
        if place == at:
            if len(every) > 1 and all(factors(other[at]) == factors(dim) for other in every):
                found.append([Factor(len(every), "is the number of equal parts"), *dim])
                continue
            if len(every) > 1:
                for other in every:
                    fix(other[at], "is concatenated with others")
            size = call.made[0].shape[at]
            found.append(dim if len(every) == 1 else [Factor(size, "is a concatenation")])
        else:
            for other in every[1:]:
                join(dim, other[place])
            found.append(dim)
    return [found]


def _stacked(call: Call) -> Dims:
    at = call.named["dim"] % call.made[0].ndim
    first = list(call.dims(0))
    for tensor in call.given[1:]:
        for a, b in zip(first, call.trace.dims(tensor), strict=True):
            join(a, b)
    return [[*first[:at], [Factor(len(call.given), "is the number of equal parts")], *first[at:]]]


def _indexed(call: Call) -> Dims:
    """One table of indices along one dimension, as for relative positions."""
    places = [place for place, index in enumerate(call.named["indices"]) if index is not None]
    if len(places) != 1:
        return None
    at, dims = places[0], call.dims(0)
    fix(dims[at], "is looked up by index")
    rows: list[Dim] = [[Factor(size, "is looked up by index")] for size in call.named["indices"][at].shape]
    return [[*dims[:at], *rows, *dims[at + 1 :]]]


def _padded(call: Call) -> Dims:
    dims, pad = list(call.dims(0)), call.named["pad"]
    for place in range(len(pad) // 2):
        if pad[2 * place] or pad[2 * place + 1]:
            at = len(dims) - 1 - place
            fix(dims[at], "is padded")
            dims[at] = [Factor(call.made[0].shape[at], MAP)]
    return [dims]


def _pooled(call: Call) -> Dims:
    """Pooling, resizing: the last two dimensions change."""
    return [[*call.dims(0)[:-2], *([Factor(size, MAP)] for size in tensor.shape[-2:])] for tensor in call.made]


def _unfolded(call: Call) -> Dims:
    """Patches (B, C, H, W) to (B, C * k * k, L): the channels are the outer factor."""
    batch, channels, *_ = call.dims(0)
    kernel = Factor(call.made[0].shape[1] // call.given[0].shape[1], "is a kernel")
    return [[batch, [*channels, kernel], [Factor(call.made[0].shape[2], MAP)]]]


def _folded(call: Call) -> Dims:
    """And back."""
    batch, patches, _ = call.dims(0)
    channels, kernel = regroup([patches], (size := call.made[0].shape[1], call.given[0].shape[1] // size))
    fix(kernel, "is a kernel")
    return [[batch, channels, *([Factor(side, MAP)] for side in call.made[0].shape[2:])]]


def _layer_norm(call: Call) -> Dims:
    dims = call.dims("input")
    for name in ("weight", "bias"):
        if call.named[name] is not None:
            its = call.dims(name)
            for a, b in zip(dims[-len(its) :], its, strict=True):
                join(a, b)
    return [dims, *([] for _ in call.made[1:])]


def _batch_norm(call: Call) -> Dims:
    dims = call.dims("input")
    for name in ("weight", "bias", "running_mean", "running_var"):
        if call.named.get(name) is not None:
            join(dims[1], call.dims(name)[0])
    return [dims, *([] for _ in call.made[1:])]


def _group_norm(call: Call) -> Dims:
    if call.named["group"] != 1:
        fix(call.dims("input")[1], "is normed in groups")
    return _batch_norm(call)


def _convolution(call: Call) -> Dims:
    """A convolution of G groups: their number is a factor of its input, its rows and its output."""
    inputs, weight, groups = call.dims("input"), call.dims("weight"), call.named["groups"]
    for dim in weight[2:]:
        fix(dim, "is a kernel")
    if call.named["transposed"]:
        if groups > 1:
            return None
        weight = [weight[1], weight[0]]
    number, inner = regroup([inputs[1]], (groups, call.given[0].shape[1] // groups))
    rows, outer = regroup([weight[0]], (groups, call.made[0].shape[1] // groups))
    join(number, rows)
    join(inner, weight[1])
    if groups > 1:
        fix([*inner, *outer], "is the width of a group")
    out = [*rows, *outer]
    if call.named["bias"] is not None:
        join(out, call.dims("bias")[0])
    return [[inputs[0], out, *([Factor(size, MAP)] for size in call.made[0].shape[2:])]]


def _product(call: Call) -> Dims:
    """Matrix products (n, k) x (k, m), and batches of them, maybe with something added."""
    a, b = call.given[-2:]
    left, right = call.trace.dims(a), call.trace.dims(b)
    join(left[-1], right[-2])
    if call.trace.is_data(a) and call.trace.is_data(b):
        fix(left[-1], "is summed over between activations")
    for one, other in zip(left[:-2], right[:-2], strict=True):
        join(one, other)
    out = [*left[:-1], right[-1]]
    if len(call.given) == 3:
        for dim, other, size in zip(reversed(out), reversed(call.dims(0)), reversed(call.given[0].shape), strict=False):
            if size > 1:
                join(dim, other)
    return [out]


def _nothing(call: Call) -> Dims:
    """What only takes its type from a tensor."""
    return [call.trace.dims(tensor) for tensor in call.made]


def _table(*entries: tuple[Sequence[str], Rule]) -> dict[str, Rule]:
    return {name: rule for names, rule in entries for name in names}


RULES: dict[str, Rule] = _table(
    (
        ("_softmax", "_safe_softmax", "_log_softmax", "clone", "_to_copy", "alias", "detach", "lift_fresh", "dropout"),
        _same,
    ),
    (("native_dropout", "zeros_like", "ones_like", "empty_like", "contiguous", "cumsum"), _same),
    (("hardswish", "copy", "mish", "prelu", "_prelu_kernel"), pointwise),  # which torch does not tag as such
    (("as_strided",), _restrided),
    (("roll", "flip"), _moved_along),
    (("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten"), _view),
    (("permute",), _permute),
    (("transpose",), _transpose),
    (("t", "numpy_T"), _t),
    (("squeeze", "unsqueeze", "expand"), _resized_by_ones),
    (("mean", "sum", "amax", "amin", "max", "var", "std", "var_mean", "linalg_vector_norm", "norm"), _reduced),
    (("select",), _select),
    (("slice",), _slice),
    (("unbind",), _unbind),
    (("split", "split_with_sizes", "chunk"), _split),
    (("cat",), _concatenated),
    (("stack",), _stacked),
    (("index",), _indexed),
    (("constant_pad_nd",), _padded),
    (("avg_pool2d", "max_pool2d_with_indices", "_adaptive_avg_pool2d", "adaptive_avg_pool2d"), _pooled),
    (("adaptive_max_pool2d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"), _pooled),
    (("reflection_pad2d", "replication_pad2d"), _pooled),
    (("im2col",), _unfolded),
    (("col2im",), _folded),
    (("native_layer_norm",), _layer_norm),
    (("native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit"), _batch_norm),
    (("cudnn_batch_norm",), _batch_norm),
    (("native_group_norm",), _group_norm),
    (("convolution",), _convolution),
    (("mm", "bmm", "addmm", "baddbmm"), _product),
    (("new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided"), _nothing),
)
