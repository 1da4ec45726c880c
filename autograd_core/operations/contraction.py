"""Products that sum over shared axes: matrix products, the linear map of a layer, Einstein's convention."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..define import fused, method, public, record
from ..dispatch import FUNCTIONS
from ..samples import Sample, calls, draw
from ..tensor import Tensor, TensorLike, asarray


def _as_matrices(ops: Any, g: Any, x: Any, y: Any, x_shape: Any, y_shape: Any) -> tuple[Any, Any, Any]:
    """Vectors as one-row or one-column matrices, and the cotangent with the axes that the product dropped."""
    if len(x_shape) == 1:
        g = ops.expand_dims(g, axis=-1 if len(y_shape) == 1 else -2)
        x = None if x is None else ops.expand_dims(x, axis=0)
    if len(y_shape) == 1:
        g = ops.expand_dims(g, axis=-1)
        y = None if y is None else ops.expand_dims(y, axis=1)
    return g, x, y


def transposed(ops: Any, x: Any) -> Any:
    """The matrices of a batch transposed: (…, n, m) → (…, m, n)."""
    n = len(x.shape)
    return ops.transpose(x, axes=(*range(n - 2), n - 1, n - 2))


def _summed_to(ops: Any, g: Any, shape: tuple[int, ...]) -> Any:
    """Sum the batch axes along which an operand was broadcast."""
    lead = len(g.shape) - len(shape)
    axes = tuple(range(lead)) + tuple(i + lead for i, n in enumerate(shape) if n == 1 and g.shape[i + lead] != 1)
    return ops.reshape(ops.sum(g, axis=axes), shape=shape) if axes else g


def _matmul_x(ops, g, y, x_shape, y_shape):
    if len(x_shape) == len(y_shape) == 2:
        return ops.matmul(g, ops.transpose(y))
    g, _, y = _as_matrices(ops, g, None, y, x_shape, y_shape)
    shape = x_shape if len(x_shape) > 1 else (1, *x_shape)
    return ops.reshape(_summed_to(ops, ops.matmul(g, transposed(ops, y)), shape), shape=x_shape)


def _matmul_y(ops, g, x, x_shape, y_shape):
    if len(x_shape) == len(y_shape) == 2:
        return ops.matmul(ops.transpose(x), g)
    g, x, _ = _as_matrices(ops, g, x, None, x_shape, y_shape)
    shape = y_shape if len(y_shape) > 1 else (*y_shape, 1)
    if len(shape) == 2 and len(x.shape) > 2:
        # One product over all batches instead of one per batch and a sum.
        rows = math.prod(x.shape[:-1])
        x = ops.reshape(x, shape=(rows, x.shape[-1]))
        g = ops.reshape(g, shape=(rows, g.shape[-1]))
    return ops.reshape(_summed_to(ops, ops.matmul(transposed(ops, x), g), shape), shape=y_shape)


@record(
    "contraction",
    derivatives=dict(x=_matmul_x, y=_matmul_y),
    into=lambda xp, out, x, y: [(xp.matmul, (x, y, out))],
    operators=("__matmul__", "__rmatmul__"),
    samples=calls(
        lambda rng: Sample((draw(rng, (2, 3)), draw(rng, (3, 4)))),
        lambda rng: Sample((draw(rng, (3,)), draw(rng, (3,)))),
        lambda rng: Sample((draw(rng, (3,)), draw(rng, (2, 3, 2)))),
        lambda rng: Sample((draw(rng, (2, 2, 3)), draw(rng, (3,)))),
        lambda rng: Sample((draw(rng, (2, 2, 3)), draw(rng, (3, 2)))),
        lambda rng: Sample((draw(rng, (2, 1, 2, 3)), draw(rng, (3, 3, 2)))),
        lambda rng: Sample((draw(rng, (0, 3)), draw(rng, (3, 2)))),
    ),
)
def matmul(xp, x, y, /):
    """Matrix product over the last two axes, (…, n, k) times (…, k, m), the others broadcast; vectors as in NumPy.

    >>> import retrograd as rg
    >>> rg.tensor([[1.0, 2.0]]) @ rg.tensor([[3.0], [4.0]])
    tensor([[11.]])
    """
    return xp.matmul(x, y)


def _linear_rule(ops, needs, g, x, weight, x_shape):
    rows = ops.reshape(g, shape=(math.prod(g.shape[:-1]), g.shape[-1]))
    gx = gw = gb = None
    if needs[0]:
        gx = ops.reshape(ops.matmul(rows, weight), shape=x_shape)
    if needs[1]:
        gw = ops.matmul(ops.transpose(rows), ops.reshape(x, shape=(math.prod(x_shape[:-1]), x_shape[-1])))
    if needs[2]:
        gb = ops.sum(rows, axis=0)
    return gx, gw, gb


def _linear_fast(ops, x, weight, bias=None):
    """One product of two matrices, whatever the number of leading axes, and the bias added in place."""
    xp = ops.xp
    if x.ndim == 2:
        out = xp.matmul(x, weight.T)
    else:
        out = xp.matmul(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), weight.T)
    if bias is not None:
        out += bias
    return out if x.ndim == 2 else out.reshape(*x.shape[:-1], weight.shape[0])


def _linear_into(xp, out, x, weight, bias):
    rows, places = (a.reshape(math.prod(a.shape[:-1]), a.shape[-1]) for a in (x, out))
    calls = [(xp.matmul, (rows, weight.T, places))]
    return calls if bias is None else [*calls, (xp.add, (places, bias, places))]


def _check_linear(backend: Any, x: Any, weight: Any, bias: Any = None) -> None:
    if weight.ndim != 2 or not x.ndim or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"the last axis of x, of length {x.shape[-1] if x.ndim else 'none'}, must be the second of weight "
            f"{tuple(weight.shape)}"
        )
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise ValueError(f"bias must have shape ({weight.shape[0]},), got {tuple(bias.shape)}")


@fused(
    derivative=_linear_rule,
    exact=True,
    fast=_linear_fast,
    into=_linear_into,
    floating=True,
    check=_check_linear,
    method=False,
    numpy=(),
    samples=calls(
        lambda rng: Sample((draw(rng, (2, 3)), draw(rng, (4, 3)), draw(rng, (4,)))),
        lambda rng: Sample((draw(rng, (2, 2, 3)), draw(rng, (4, 3)), draw(rng, (4,)))),
        lambda rng: Sample((draw(rng, (3,)), draw(rng, (2, 3)))),
        lambda rng: Sample((draw(rng, (0, 3)), draw(rng, (2, 3)), draw(rng, (2,)))),
    ),
)
def linear(ops, x, weight, bias=None, /):
    """x · weightᵀ + bias: x (…, in), weight (out, in), bias (out,) give (…, out).

    >>> import retrograd as rg
    >>> rg.linear(rg.tensor([1.0, 2.0]), rg.tensor([[3.0, 4.0]]), rg.tensor([0.5]))
    tensor([11.5])
    """
    out = ops.matmul(x, ops.transpose(weight))
    return out if bias is None else ops.add(out, bias)


# -- Einstein's convention -----------------------------------------------------------------------------------------


def parse_subscripts(subscripts: str, ndims: list[int]) -> tuple[list[str], str]:
    """The labels of each operand and of the result, the ellipsis written out in letters that are not used.

    >>> parse_subscripts("...i,ij", [3, 2])
    (['ABi', 'ij'], 'ABj')
    """
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ndims):
        raise ValueError(f"einsum {subscripts!r} names {len(terms)} operands, got {len(ndims)}")
    free = [c for c in string.ascii_uppercase + string.ascii_lowercase if c not in text]
    widest = max((n - len(t.replace("...", "")) for t, n in zip(terms, ndims, strict=True) if "..." in t), default=0)
    ellipsis = "".join(free[:widest])
    written = []
    for term, ndim in zip(terms, ndims, strict=True):
        covered = ndim - len(term.replace("...", ""))
        if covered < 0 or (covered and "..." not in term):
            raise ValueError(f"einsum {subscripts!r}: {term!r} does not fit an operand of {ndim} axes")
        written.append(term.replace("...", ellipsis[len(ellipsis) - covered :]))
    if not arrow:
        every = "".join(written)
        right = "..." + "".join(sorted(c for c in set(every) - set(ellipsis) if every.count(c) == 1))
    result = right.replace("...", ellipsis)
    for label in result:
        if label not in "".join(written) or result.count(label) > 1:
            raise ValueError(f"einsum {subscripts!r}: label {label!r} of the result must stand once, and in an operand")
    return written, result


def _einsum_rule(ops, needs, g, operands, subscripts):
    """The gradient of each operand is an einsum of the cotangent with the other operands."""
    terms, result = parse_subscripts(subscripts, [len(o.shape) for o in operands])
    lengths = {}
    for term, o in zip(terms, operands, strict=True):
        for c, n in zip(term, o.shape, strict=True):
            if n != 1 or c not in lengths:
                lengths[c] = n
    gradients: list[Any] = []
    for i, need in enumerate(needs):
        if not need:
            gradients.append(None)
            continue
        others = [j for j in range(len(operands)) if j != i]
        inputs, labels = [g, *[operands[j] for j in others]], [result, *[terms[j] for j in others]]
        wanted = terms[i]
        unique = "".join(dict.fromkeys(wanted))
        reachable = "".join(c for c in unique if any(c in t for t in labels))
        part = ops.einsum(*inputs, subscripts=f"{','.join(labels)}->{reachable}")
        if reachable != unique:  # a label that only this operand has was summed: its gradient is the same everywhere
            kept = tuple(part.shape[reachable.index(c)] if c in reachable else 1 for c in unique)
            part = ops.reshape(part, shape=kept)
            part = ops.broadcast_to(part, shape=tuple(lengths[c] for c in unique))
        if unique != wanted:  # a repeated label takes a diagonal: its gradient lies on the diagonal
            part = _on_diagonal(ops, part, unique, wanted)
        gradients.append(_summed_to(ops, part, tuple(operands[i].shape)))
    return gradients


def _on_diagonal(ops: Any, part: Any, unique: str, wanted: str) -> Any:
    free = [c for c in string.ascii_letters if c not in wanted]
    inputs, labels, full = [part], [unique], ""
    for position, c in enumerate(wanted):
        if c in wanted[:position]:
            fresh = free.pop()
            inputs.append(ops.eye(part.shape[unique.index(c)], like=part))
            labels.append(c + fresh)
            full += fresh
        else:
            full += c
    return ops.einsum(*inputs, subscripts=f"{','.join(labels)}->{full}")


@record(
    "contraction",
    derivative=_einsum_rule,
    method=False,
    numpy=(),
    samples=calls(
        lambda rng: Sample((draw(rng, (2, 3)), draw(rng, (3, 4))), {"subscripts": "ij,jk->ik"}),
        lambda rng: Sample((draw(rng, (2, 3)),), {"subscripts": "ij->j"}),
        lambda rng: Sample((draw(rng, (3, 3)),), {"subscripts": "ii->i"}),
        lambda rng: Sample((draw(rng, (3, 3)),), {"subscripts": "ii"}),
        lambda rng: Sample((draw(rng, (2, 2, 3)), draw(rng, (3,))), {"subscripts": "...i,i->..."}),
        lambda rng: Sample((draw(rng, (2,)), draw(rng, (3,)), draw(rng, (2, 3))), {"subscripts": "i,j,ij->"}),
    ),
)
def einsum_(xp, /, *operands, subscripts: str):
    """`einsum` with the operands first."""
    terms, result = parse_subscripts(subscripts, [o.ndim for o in operands])
    text = f"{','.join(terms)}->{result}"
    if len(operands) == 1:
        return xp.einsum(text, operands[0]).copy()  # a transpose or diagonal comes as a view, and could be written into
    return xp.einsum(text, *operands, optimize=True)


@public
def einsum(subscripts: str, *operands: TensorLike) -> Tensor:
    """Sums of products in Einstein's convention, as `numpy.einsum`: repeated labels are multiplied, missing ones added.

    >>> import retrograd as rg
    >>> a, b = rg.tensor([[1.0, 2.0]]), rg.tensor([[3.0], [4.0]])
    >>> rg.einsum("ij,jk->ik", a, b)
    tensor([[11.]])
    """
    if not isinstance(subscripts, str):
        raise TypeError(
            f"einsum expects the subscripts first, as a string such as 'ij,jk->ik'; got {type(subscripts).__name__}"
        )
    return FUNCTIONS["einsum"](*operands, subscripts=subscripts)


@public
def tensordot(x: TensorLike, y: TensorLike, axes: int | Sequence[int | Sequence[int]] = 2) -> Tensor:
    """Sum of products over the given axes of x and of y: the last and the first n, or a pair of axes or of lists.

    >>> import retrograd as rg
    >>> rg.tensordot(rg.ones((2, 3)), rg.ones((4, 3)), axes=(1, 1)).shape
    (2, 4)
    """
    x, y = asarray(x), asarray(y)
    pair = (range(x.ndim - axes, x.ndim), range(axes)) if isinstance(axes, int) else axes
    over_x, over_y = ([a] if isinstance(a, int) else list(a) for a in pair)
    over_x, over_y = [a % max(x.ndim, 1) for a in over_x], [a % max(y.ndim, 1) for a in over_y]
    if [x.shape[a] for a in over_x] != [y.shape[a] for a in over_y]:
        raise ValueError(f"tensordot: axes {over_x} of {x.shape} and {over_y} of {y.shape} differ in length")
    kept_x, kept_y = ([a for a in range(v.ndim) if a not in over] for v, over in ((x, over_x), (y, over_y)))
    n = math.prod(x.shape[a] for a in over_x)
    transpose, reshape = FUNCTIONS["transpose"], FUNCTIONS["reshape"]
    rows = reshape(transpose(x, axes=(*kept_x, *over_x)), shape=(math.prod(x.shape[a] for a in kept_x), n))
    columns = reshape(transpose(y, axes=(*over_y, *kept_y)), shape=(n, math.prod(y.shape[a] for a in kept_y)))
    shape = (*[x.shape[a] for a in kept_x], *[y.shape[a] for a in kept_y])
    return reshape(FUNCTIONS["matmul"](rows, columns), shape=shape)


@public
@method
def dot(x: TensorLike, y: TensorLike) -> Tensor:
    """The product over the last axis of x and the last but one of y, as `numpy.dot`; a number multiplies.

    >>> import retrograd as rg
    >>> rg.dot(rg.tensor([1.0, 2.0]), rg.tensor([3.0, 4.0]))
    tensor(11.)
    """
    if np.ndim(x) == 0 or np.ndim(y) == 0:
        return FUNCTIONS["multiply"](x, y)
    return FUNCTIONS["matmul"](x, y) if np.ndim(y) <= 2 else tensordot(x, y, (-1, -2))


@public
def inner(x: TensorLike, y: TensorLike) -> Tensor:
    """The product over the last axes of both, as `numpy.inner`; a number multiplies.

    >>> import retrograd as rg
    >>> rg.inner(rg.ones((2, 3)), rg.ones((4, 3))).shape
    (2, 4)
    """
    if np.ndim(x) == 0 or np.ndim(y) == 0:
        return FUNCTIONS["multiply"](x, y)
    return tensordot(x, y, (-1, -1))


@public
def outer(x: TensorLike, y: TensorLike) -> Tensor:
    """Every element of x times every element of y, both flattened: (n,), (m,) → (n, m).

    >>> import retrograd as rg
    >>> rg.outer(rg.tensor([1.0, 2.0]), rg.tensor([3.0, 4.0]))
    tensor([[3., 4.],
            [6., 8.]])
    """
    return FUNCTIONS["multiply"](FUNCTIONS["reshape"](x, shape=(-1, 1)), FUNCTIONS["reshape"](y, shape=(1, -1)))
