"""Softmax and its logarithm: scores become probabilities."""

from __future__ import annotations

import math

import numpy as np

from ..define import fused
from ..samples import Special, over

_axes = over((2, 3, 4), {}, {"axis": 0}, {"axis": 1})


def _softmax_fast(ops, x, axis=-1):
    xp = ops.xp
    out = x - xp.max(x, axis=axis, keepdims=True)
    xp.exp(out, out=out)
    out /= xp.sum(out, axis=axis, keepdims=True)
    return out


def _softmax_rule(ops, needs, g, out, axis):
    weighted = ops.multiply(g, out)
    return [ops.subtract(weighted, ops.multiply(out, ops.sum(weighted, axis=axis, keepdims=True)))]


@fused(
    derivative=_softmax_rule,
    exact=True,
    fast=_softmax_fast,
    floating=True,
    numpy=(),
    samples=_axes,
    special=(
        Special((np.array([1000.0, 0.0]),), np.array([1.0, 0.0]), (np.zeros(2),)),
        Special((np.array([-np.inf, 0.0]),), np.array([0.0, 1.0]), (np.zeros(2),)),
    ),
)
def softmax(ops, x, /, axis=-1):
    """exp(x) / Σ exp(x) along `axis`, computed from x - max(x), so that no exponential overflows.

    >>> import retrograd as rg
    >>> rg.softmax(rg.tensor([0.0, 0.0]))
    tensor([0.5, 0.5])
    """
    shifted = ops.exp(ops.subtract(x, ops.max(x, axis=axis, keepdims=True)))
    return ops.divide(shifted, ops.sum(shifted, axis=axis, keepdims=True))


def _log_softmax_fast(ops, x, axis=-1):
    xp = ops.xp
    out = x - xp.max(x, axis=axis, keepdims=True)
    out -= xp.log(xp.sum(xp.exp(out), axis=axis, keepdims=True))
    return out


@fused(
    derivative=lambda ops, needs, g, out, axis: [
        ops.subtract(g, ops.multiply(ops.exp(out), ops.sum(g, axis=axis, keepdims=True)))
    ],
    exact=True,
    fast=_log_softmax_fast,
    floating=True,
    numpy=(),
    samples=_axes,
    special=(Special((np.array([1000.0, 0.0]),), np.array([0.0, -1000.0])),),
)
def log_softmax(ops, x, /, axis=-1):
    """log(softmax(x)) along `axis`, exact to rounding where softmax itself would underflow to 0.

    >>> import retrograd as rg
    >>> rg.log_softmax(rg.tensor([0.0, 1000.0]))
    tensor([-1000.,     0.])
    """
    shifted = ops.subtract(x, ops.max(x, axis=axis, keepdims=True))
    return ops.subtract(shifted, ops.log(ops.sum(ops.exp(shifted), axis=axis, keepdims=True)))


def _logsumexp_rule(ops, needs, g, x, out, axis, keepdims):
    from .reduction import kept

    shape = kept(x.shape, axis)
    weights = ops.exp(ops.subtract(x, _finite(ops, ops.reshape(out, shape=shape))))
    return [ops.multiply(ops.reshape(g, shape=shape), weights)]


def _finite(ops, x):
    """x with 0 for infinities: subtracting an infinity from itself is not a number."""
    return ops.where(ops.isfinite(x), x, 0.0)


@fused(
    derivative=_logsumexp_rule,
    exact=True,
    floating=True,
    numpy=(),
    samples=over((2, 3, 4), {}, {"axis": 1}, {"axis": (0, 2), "keepdims": True}),
    special=(
        Special((np.array([1000.0, 1000.0]),), 1000.0 + np.log(2.0), (np.array([0.5, 0.5]),)),
        Special((np.array([-np.inf, -np.inf]),), -np.inf, (np.zeros(2),)),
    ),
)
def logsumexp(ops, x, /, axis=None, keepdims=False):
    """log Σ exp(x) over `axis`, without overflow; -inf where all are.

    >>> import retrograd as rg
    >>> rg.logsumexp(rg.tensor([1000.0, 0.0]))
    tensor(1000.)
    """
    top = _finite(ops, ops.max(x, axis=axis, keepdims=True))
    total = ops.sum(ops.exp(ops.subtract(x, top)), axis=axis, keepdims=keepdims)
    nothing = ops.equal(total, 0)  # all were -inf: keep log away from 0, whose slope there is infinite
    log_total = ops.where(nothing, -math.inf, ops.log(ops.where(nothing, 1.0, total)))
    return ops.add(log_total, ops.reshape(top, shape=tuple(total.shape)))
