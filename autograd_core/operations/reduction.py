"""Sums, means, extremes: many elements become one along the axes named, or along all."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..define import record
from ..samples import Sample, Special, calls, draw, over

_AXES = ({}, {"axis": 1}, {"axis": (0, 2), "keepdims": True}, {"axis": -1, "keepdims": True}, {"axis": ()})
_one_axis = over((2, 3, 4), *_AXES[:4])


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """The axes as non-negative numbers; None means all."""
    if axis is None or ndim == 0:  # NumPy accepts axis 0 and -1 of a 0-d array
        return tuple(range(ndim))
    return tuple(a % ndim for a in (axis if isinstance(axis, (tuple, list)) else (axis,)))


def _count(shape: tuple[int, ...], axis: Any) -> int:
    return math.prod(shape[a] for a in _axes(axis, len(shape)))


def kept(shape: tuple[int, ...], axis: Any) -> tuple[int, ...]:
    """The shape after a reduction that keeps the reduced axes, with length 1."""
    gone = _axes(axis, len(shape))
    return tuple(1 if i in gone else n for i, n in enumerate(shape))


def _spread(ops: Any, g: Any, shape: tuple[int, ...], axis: Any) -> Any:
    """Bring what a reduction gave back to the shape that it reduced."""
    if axis is not None and len(g.shape) != len(shape):
        g = ops.reshape(g, shape=kept(shape, axis))
    return g if g.shape == shape else ops.broadcast_to(g, shape=shape)


@record(
    "reduction",
    derivatives=dict(x=lambda ops, g, x_shape, axis: _spread(ops, g, x_shape, axis)),
    into=lambda xp, out, x, axis, keepdims: [(xp.add.reduce, (x, axis, None, out, keepdims))],
    samples=over((2, 3, 4), *_AXES),
)
def sum_(xp, x, /, axis=None, keepdims=False):
    """Sum over `axis` (an int, a tuple, None for all).

    >>> import retrograd as rg
    >>> rg.sum(rg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0)
    tensor([4., 6.])
    """
    return x.sum(axis=axis, keepdims=keepdims)


@record(
    "reduction",
    derivatives=dict(
        x=lambda ops, g, x_shape, axis: _spread(ops, ops.multiply(g, 1 / max(_count(x_shape, axis), 1)), x_shape, axis)
    ),
    floating=True,
    into=lambda xp, out, x, axis, keepdims: [
        (xp.add.reduce, (x, axis, None, out, keepdims)),
        (xp.true_divide, (out, x.dtype.type(_count(x.shape, axis)), out)),
    ],
    samples=over((2, 3, 4), *_AXES[:4]),
)
def mean(xp, x, /, axis=None, keepdims=False):
    """Arithmetic mean over `axis`. Integers are averaged as the default float.

    >>> import retrograd as rg
    >>> rg.mean(rg.tensor([1, 2, 6]))
    tensor(3.)
    """
    return xp.mean(x, axis=axis, keepdims=keepdims)


def _prod_rule(ops, g, x, axis):
    """The product of all others, by products from both ends, so that zeros are no trouble."""
    shape, axes = tuple(x.shape), _axes(axis, len(x.shape))
    rest = [i for i in range(len(shape)) if i not in axes]
    order = (*rest, *axes)
    flat = ops.reshape(ops.transpose(x, axes=order), shape=(*[shape[i] for i in rest], _count(shape, axis)))
    n = flat.shape[-1]
    if not n:
        return ops.multiply(x, 0.0)
    others = []
    for i in range(n):
        parts = [ops.getitem(flat, template=(..., j)) for j in range(n) if j != i]
        product = parts[0] if parts else ops.add(ops.multiply(ops.getitem(flat, template=(..., i)), 0.0), 1.0)
        for part in parts[1:]:
            product = ops.multiply(product, part)
        others.append(product)
    stacked = ops.reshape(ops.stack(*others, axis=-1), shape=tuple(shape[i] for i in order))
    back = tuple(order.index(i) for i in range(len(shape)))
    return ops.multiply(_spread(ops, g, shape, axis), ops.transpose(stacked, axes=back))


@record(
    "reduction", derivatives=dict(x=_prod_rule), samples=over((2, 3), {}, {"axis": 1}, {"axis": 0, "keepdims": True})
)
def prod(xp, x, /, axis=None, keepdims=False):
    """Product over `axis`. The gradient is right where factors are zero, and takes n² products for n factors.

    >>> import retrograd as rg
    >>> rg.prod(rg.tensor([2.0, 3.0, 4.0]))
    tensor(24.)
    """
    return xp.prod(x, axis=axis, keepdims=keepdims)


def _var_rule(ops, g, x, axis, correction):
    shape = tuple(x.shape)
    centred = ops.subtract(x, ops.mean(x, axis=axis, keepdims=True))
    return ops.multiply(_spread(ops, ops.multiply(g, 2 / _freedom(shape, axis, correction)), shape, axis), centred)


def _freedom(shape: tuple[int, ...], axis: Any, correction: float) -> float:
    n = _count(shape, axis) - correction
    return n if n > 0 else math.nan  # as NumPy: too few elements give NaN


@record(
    "reduction",
    derivatives=dict(x=_var_rule),
    floating=True,
    samples=over((2, 3, 4), {}, {"axis": 1, "correction": 1}, {"axis": (0, 2), "keepdims": True}),
)
def var(xp, x, /, axis=None, correction: float = 0, keepdims=False):
    """Variance over `axis`: the mean of squared distances from the mean, over n - `correction` elements.

    NumPy's default is `correction=0`; PyTorch's is 1.

    >>> import retrograd as rg
    >>> rg.var(rg.tensor([1.0, 3.0]))
    tensor(1.)
    """
    return xp.var(x, axis=axis, ddof=correction, keepdims=keepdims)


def _std_rule(ops, g, out, x, axis, correction):
    # d√v = dv / 2√v, and 0 where v is 0: a constant row has no direction in which its spread grows first.
    flat = ops.equal(out, 0)
    slope = ops.where(flat, 0.0, ops.divide(g, ops.multiply(ops.where(flat, 1.0, out), 2.0)))
    return _var_rule(ops, slope, x, axis, correction)


@record(
    "reduction",
    derivatives=dict(x=_std_rule),
    floating=True,
    samples=over((2, 3, 4), {}, {"axis": 1, "correction": 1}, {"axis": (0, 2), "keepdims": True}),
    special=(Special((np.array([2.0, 2.0]),), 0.0, (np.array([0.0, 0.0]),)),),
)
def std(xp, x, /, axis=None, correction: float = 0, keepdims=False):
    """Standard deviation over `axis`: the square root of `var`. The gradient of a constant row is 0.

    >>> import retrograd as rg
    >>> rg.std(rg.tensor([1.0, 3.0]))
    tensor(1.)
    """
    return xp.std(x, axis=axis, ddof=correction, keepdims=keepdims)


def _extreme_rule(ops, g, out, x, axis):
    """Elements equal to the extreme share the gradient evenly."""
    shape = tuple(x.shape)
    hit = ops.astype(ops.equal(x, _spread(ops, out, shape, axis)), dtype=g.dtype)
    share = ops.divide(hit, ops.sum(hit, axis=axis, keepdims=True))
    return ops.multiply(_spread(ops, g, shape, axis), share)


@record(
    "reduction",
    derivatives=dict(x=_extreme_rule),
    numpy=("max", "amax"),
    into=lambda xp, out, x, axis, keepdims: [(xp.maximum.reduce, (x, axis, None, out, keepdims))],
    samples=_one_axis,
    special=(
        Special((np.array([1.0, 3.0, 3.0]),), 3.0, (np.array([0.0, 0.5, 0.5]),)),
        Special((np.array([1.0, np.nan]),), np.nan),
        Special((np.array([1.0, np.inf]),), np.inf, (np.array([0.0, 1.0]),)),
    ),
)
def max_(xp, x, /, axis=None, keepdims=False):
    """The largest element over `axis`; NaN where there is one. Ties share the gradient.

    >>> import retrograd as rg
    >>> rg.max(rg.tensor([[1.0, 5.0], [7.0, 2.0]]), axis=1)
    tensor([5., 7.])
    """
    return xp.max(x, axis=axis, keepdims=keepdims)


@record(
    "reduction",
    derivatives=dict(x=_extreme_rule),
    numpy=("min", "amin"),
    into=lambda xp, out, x, axis, keepdims: [(xp.minimum.reduce, (x, axis, None, out, keepdims))],
    samples=_one_axis,
    special=(Special((np.array([1.0, 1.0, 3.0]),), 1.0, (np.array([0.5, 0.5, 0.0]),)),),
)
def min_(xp, x, /, axis=None, keepdims=False):
    """The smallest element over `axis`; NaN where there is one. Ties share the gradient.

    >>> import retrograd as rg
    >>> rg.min(rg.tensor([4.0, 2.0, 3.0]))
    tensor(2.)
    """
    return xp.min(x, axis=axis, keepdims=keepdims)


_positions = over((2, 3, 4), {}, {"axis": 1}, {"axis": -1, "keepdims": True})


@record("reduction", samples=_positions)
def argmax(xp, x, /, axis: int | None = None, keepdims=False):
    """The position of the (first) largest element along `axis`, int64; in the flattened tensor for None.

    >>> import retrograd as rg
    >>> rg.argmax(rg.tensor([[1.0, 5.0], [7.0, 2.0]]), axis=1)
    tensor([1, 0])
    """
    return xp.argmax(x, axis=axis, keepdims=keepdims)


@record("reduction", samples=_positions)
def argmin(xp, x, /, axis: int | None = None, keepdims=False):
    """The position of the (first) smallest element along `axis`, int64; in the flattened tensor for None.

    >>> import retrograd as rg
    >>> rg.argmin(rg.tensor([4.0, 2.0, 3.0]))
    tensor(1)
    """
    return xp.argmin(x, axis=axis, keepdims=keepdims)


_flags = calls(
    lambda rng: Sample((rng.random((2, 3)) > 0.5,)),
    lambda rng: Sample((rng.random((2, 3)) > 0.1,), {"axis": 1, "keepdims": True}),
    lambda rng: Sample((draw(rng, (0, 2)),), {"axis": 0}),
)


@record("reduction", samples=_flags)
def any_(xp, x, /, axis=None, keepdims=False):
    """Whether at least one element over `axis` is true (nonzero).

    >>> import retrograd as rg
    >>> rg.any(rg.tensor([False, True]))
    tensor(True)
    """
    return xp.any(x, axis=axis, keepdims=keepdims)


@record("reduction", samples=_flags)
def all_(xp, x, /, axis=None, keepdims=False):
    """Whether all elements over `axis` are true (nonzero).

    >>> import retrograd as rg
    >>> rg.all(rg.tensor([False, True]))
    tensor(False)
    """
    return xp.all(x, axis=axis, keepdims=keepdims)
