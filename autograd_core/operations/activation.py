"""Activation functions: the nonlinearities between the layers of a network.

Where PyTorch has the function, values and the gradient at the kink are its, and float16 is computed in float32 where a
number on the way would leave its range. NumPy chooses an element of two arrays (`where`) no faster than it adds ten, so
pieces are joined by sums: of max(x, 0) and a function of min(x, 0).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from ..blocks import blockwise
from ..define import fused, record
from ..half import rounded, wide, widened
from ..samples import Special, over, reals

# -- smooth steps ------------------------------------------------------------------------------------------------------


def _logistic(xp: Any, x: Any) -> Any:
    # exp(-x) may become infinite, and 1 / inf is the right answer then.
    with np.errstate(over="ignore"):
        return (1 / (1 + xp.exp(-wide(x)))).astype(x.dtype, copy=False)


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g, out: ops.multiply(g, ops.multiply(out, ops.subtract(1.0, out)))),
    floating=True,
    numpy=(),
    expression="1 / (1 + exp(-x))",
    samples=reals(-4.0, 4.0),
    special=(
        Special((0.0,), 0.5, (0.25,)),
        Special((-1000.0,), 0.0, (0.0,)),
        Special((np.inf,), 1.0, (0.0,)),
        Special((-np.inf,), 0.0, (0.0,)),
        Special((np.nan,), np.nan),
    ),
)
def sigmoid(xp, x, /):
    """The logistic function 1 / (1 + e⁻ˣ): any number becomes one between 0 and 1.

    >>> import retrograd as rg
    >>> rg.sigmoid(rg.tensor([0.0, -1000.0, 1000.0]))
    tensor([0.5, 0. , 1. ])
    """
    return blockwise(partial(_logistic, xp), x)


def _log_one_plus(xp: Any, x: Any) -> Any:
    """log(1 + x) for x in [0, 1], exact to rounding: the logarithm of the rounded sum, and what the rounding lost.

    (NumPy's log1p is not vectorised: six times slower.)
    """
    total = 1 + x
    return xp.log(total) + (x - (total - 1)) / total


def _soft(xp: Any, x: Any) -> Any:
    """log(1 + exp(x)) without overflow: max(x, 0) + log(1 + exp(-|x|))."""
    return xp.maximum(x, 0) + _log_one_plus(xp, xp.exp(-xp.absolute(x)))


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g, x: ops.multiply(g, ops.sigmoid(ops.negative(x)))),
    floating=True,
    method=False,
    numpy=(),
    expression="min(x, 0) - log1p(exp(-abs(x)))",
    samples=reals(-4.0, 4.0),
    special=(
        Special((0.0,), -math.log(2.0), (0.5,)),
        Special((-1000.0,), -1000.0, (1.0,)),
        Special((np.inf,), 0.0, (0.0,)),
        Special((-np.inf,), -np.inf, (1.0,)),
    ),
)
def log_sigmoid(xp, x, /):
    """log(sigmoid(x)), exact to rounding where sigmoid itself would underflow to 0. PyTorch's `F.logsigmoid`.

    >>> import retrograd as rg
    >>> rg.log_sigmoid(rg.tensor([-1000.0, -2000.0]))
    tensor([-1000., -2000.])
    """
    return blockwise(lambda x: -_soft(xp, -x), x)


def _softplus(xp: Any, x: Any, beta: float, threshold: float) -> Any:
    scaled = x * beta
    return xp.where(scaled > threshold, x, _soft(xp, scaled) / beta)


def _softplus_gradient(ops: Any, g: Any, x: Any, beta: float, threshold: float) -> Any:
    scaled = ops.multiply(x, beta)
    straight = ops.astype(ops.greater(scaled, threshold), dtype=x.dtype)
    return ops.multiply(g, ops.maximum(ops.sigmoid(scaled), straight))  # no value of sigmoid exceeds 1


@record(
    "elementwise",
    derivatives=dict(
        x=lambda ops, g, x, beta, threshold: blockwise(
            partial(_softplus_gradient, ops, beta=beta, threshold=threshold), g, x
        )
    ),
    floating=True,
    method=False,
    numpy=(),
    expression="x if x * beta > threshold else log1p(exp(x * beta)) / beta",
    samples=over((3, 4), {}, {"beta": 2.5}, {"beta": 1.0, "threshold": -3.0}),
    special=(
        Special((0.0,), math.log(2.0), (0.5,)),
        Special((1000.0,), 1000.0, (1.0,)),
        Special((-1000.0,), 0.0, (0.0,)),
        Special((np.inf,), np.inf, (1.0,)),
    ),
)
def softplus(xp, x, /, beta=1.0, threshold=20.0):
    """log(1 + exp(beta · x)) / beta, a smooth `relu`; x itself where beta · x > threshold, as in PyTorch.

    >>> import retrograd as rg
    >>> rg.softplus(rg.tensor([-1000.0, 1000.0]))
    tensor([   0., 1000.])
    """
    return blockwise(partial(_softplus, xp, beta=beta, threshold=threshold), x)


# -- pieces joined at a kink -------------------------------------------------------------------------------------------


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g, out: ops.multiply(g, ops.astype(ops.greater(out, 0), dtype=g.dtype))),
    into=lambda xp, out, x: [(xp.maximum, (x, xp.zeros((), x.dtype), out))],
    numpy=(),
    expression="max(x, 0)",
    samples=reals(avoid=(0.0,)),
    special=(
        Special((0.0,), 0.0, (0.0,)),
        Special((np.inf,), np.inf, (1.0,)),
        Special((-np.inf,), 0.0, (0.0,)),
        Special((np.nan,), np.nan),
    ),
)
def relu(xp, x, /):
    """max(x, 0). The gradient at 0 is 0.

    >>> import retrograd as rg
    >>> rg.relu(rg.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    return xp.maximum(x, 0)


def _leaky_gradient(ops: Any, g: Any, x: Any, negative_slope: float) -> Any:
    positive = ops.astype(ops.greater(x, 0), dtype=g.dtype)
    return ops.multiply(g, ops.add(positive, ops.multiply(ops.subtract(1.0, positive), negative_slope)))


@record(
    "elementwise",
    derivatives=dict(
        x=lambda ops, g, x, negative_slope: blockwise(
            partial(_leaky_gradient, ops, negative_slope=negative_slope), g, x
        )
    ),
    floating=True,
    method=False,
    numpy=(),
    expression="x if x > 0 else x * negative_slope",
    samples=over((3, 4), {}, {"negative_slope": 0.3}, {"negative_slope": -1.5}),
    special=(Special((0.0,), 0.0, (0.01,)), Special((-np.inf,), -np.inf, (0.01,))),
)
def leaky_relu(xp, x, /, negative_slope=0.01):
    """x where it is positive, negative_slope · x elsewhere; at 0 the gradient is negative_slope.

    >>> import retrograd as rg
    >>> rg.leaky_relu(rg.tensor([-1.0, 2.0]), negative_slope=0.1)
    tensor([-0.1,  2. ])
    """
    return blockwise(lambda x: xp.maximum(x, 0) + xp.minimum(x, 0) * negative_slope, x)


def _elu(xp: Any, x: Any, alpha: float) -> Any:
    # exp(z) - 1 as 2t / (1 - t) with t = tanh(z / 2): as exact, and three times faster than NumPy's expm1.
    t = xp.tanh(xp.minimum(x, 0) * 0.5)
    return xp.maximum(x, 0) + t * (2 * alpha) / (1 - t)


def _elu_gradient(ops: Any, g: Any, x: Any, alpha: float) -> Any:
    positive = ops.astype(ops.greater(x, 0), dtype=g.dtype)
    below = ops.multiply(ops.exp(ops.minimum(x, 0.0)), ops.multiply(ops.subtract(1.0, positive), alpha))
    return ops.multiply(g, ops.add(positive, below))


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g, x, alpha: blockwise(partial(_elu_gradient, ops, alpha=alpha), g, x)),
    floating=True,
    method=False,
    numpy=(),
    expression="x if x > 0 else alpha * expm1(x)",
    samples=over((3, 4), {}, {"alpha": 0.3}),
    special=(
        Special((0.0,), 0.0, (1.0,)),
        Special((1000.0,), 1000.0, (1.0,)),
        Special((-np.inf,), -1.0, (0.0,)),
    ),
)
def elu(xp, x, /, alpha=1.0):
    """x where it is positive, alpha · (eˣ - 1) elsewhere; at 0 the gradient is alpha.

    Clevert, Unterthiner and Hochreiter, "Fast and accurate deep network learning by exponential linear units", 2015.

    >>> import retrograd as rg
    >>> rg.elu(rg.tensor([-1000.0, 2.0]))
    tensor([-1.,  2.])
    """
    return blockwise(partial(_elu, xp, alpha=alpha), x)


def _check_hardtanh(backend: Any, x: Any, min_val: float, max_val: float) -> None:
    if min_val > max_val:
        raise ValueError(f"min_val must not be above max_val, got {min_val} and {max_val}")


def _between(ops: Any, g: Any, x: Any, low: float, high: float) -> Any:
    return ops.multiply(g, ops.logical_and(ops.greater(x, low), ops.less(x, high)))


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g, x, min_val, max_val: _between(ops, g, x, min_val, max_val)),
    check=_check_hardtanh,
    method=False,
    numpy=(),
    expression="min(max(x, min_val), max_val)",
    samples=over((3, 4), {}, {"min_val": -0.5, "max_val": 1.5}),
    special=(
        Special((-1.0,), -1.0, (0.0,)),
        Special((1.0,), 1.0, (0.0,)),
        Special((np.inf,), 1.0, (0.0,)),
        Special((np.nan,), np.nan),
    ),
)
def hardtanh(xp, x, /, min_val=-1.0, max_val=1.0):
    """x, but not below min_val nor above max_val. The gradient at both bounds is 0 (that of `clip` is 1).

    >>> import retrograd as rg
    >>> rg.hardtanh(rg.tensor([-3.0, 0.5, 3.0]))
    tensor([-1. ,  0.5,  1. ])
    """
    return xp.minimum(xp.maximum(x, min_val), max_val)


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g, x: _between(ops, g, x, 0, 6)),
    method=False,
    numpy=(),
    expression="min(max(x, 0), 6)",
    samples=reals(-2.0, 8.0, avoid=(0.0, 6.0)),
    special=(Special((0.0,), 0.0, (0.0,)), Special((6.0,), 6.0, (0.0,)), Special((np.inf,), 6.0, (0.0,))),
)
def relu6(xp, x, /):
    """min(max(x, 0), 6), a `relu` that small number formats can hold. The gradient at 0 and at 6 is 0.

    >>> import retrograd as rg
    >>> rg.relu6(rg.tensor([-1.0, 2.0, 9.0]))
    tensor([0., 2., 6.])
    """
    return xp.minimum(xp.maximum(x, 0), 6)


# -- x times a smooth step ---------------------------------------------------------------------------------------------


def _silu_gradient(ops: Any, g: Any, x: Any) -> Any:
    s = ops.sigmoid(x)
    return ops.multiply(g, ops.multiply(s, ops.add(ops.multiply(x, ops.subtract(1.0, s)), 1.0)))


@fused(
    derivative=lambda ops, needs, g, x: [blockwise(partial(_silu_gradient, ops), g, x)],
    exact=True,
    fast=lambda ops, x: blockwise(lambda x: ops.multiply(x, ops.sigmoid(x)), x),
    floating=True,
    method=False,
    numpy=(),
    expression="x / (1 + exp(-x))",
    samples=reals(-4.0, 4.0),
    special=(Special((0.0,), 0.0, (0.5,)), Special((-1000.0,), 0.0, (0.0,)), Special((np.inf,), np.inf)),
)
def silu(ops, x, /):
    """x · sigmoid(x), also called swish.

    Elfwing, Uchibe and Doya, "Sigmoid-weighted linear units for neural network function approximation in reinforcement
    learning", 2017.

    >>> import retrograd as rg
    >>> rg.silu(rg.tensor([0.0, 1000.0]))
    tensor([   0., 1000.])
    """
    return ops.multiply(x, ops.sigmoid(x))


_ROOT_HALF = math.sqrt(0.5)
_DENSITY = 1 / math.sqrt(2 * math.pi)  # of the standard normal distribution at 0
_SLOPE = math.sqrt(2 / math.pi)  # √(2/π) · (x + 0.044715 x³) is what the approximation puts into tanh
_CUBE = 0.044715 * _SLOPE


def _check_gelu(backend: Any, x: Any, approximate: str) -> None:
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate must be 'none' (the error function) or 'tanh', got {approximate!r}")


def _wave(ops: Any, x: Any, approximate: str) -> Any:
    """erf(x / √2), or the tanh that is near it."""
    if approximate == "none":
        return ops.erf(ops.multiply(x, _ROOT_HALF))
    return ops.tanh(ops.multiply(x, ops.add(ops.multiply(ops.square(x), _CUBE), _SLOPE)))


def _gelu(ops: Any, x: Any, approximate: str) -> Any:
    (single,) = widened(ops, x)
    return rounded(ops, ops.multiply(ops.multiply(single, 0.5), ops.add(_wave(ops, single, approximate), 1.0)), x)


def _gelu_gradient(ops: Any, g: Any, x: Any, approximate: str) -> Any:
    (single,) = widened(ops, x)
    wave, square = _wave(ops, single, approximate), ops.square(single)
    if approximate == "none":
        half_slope = ops.multiply(ops.exp(ops.multiply(square, -0.5)), _DENSITY)
    else:
        inner = ops.add(ops.multiply(square, 1.5 * _CUBE), 0.5 * _SLOPE)
        half_slope = ops.multiply(inner, ops.subtract(1.0, ops.square(wave)))
    half = ops.multiply(ops.add(wave, 1.0), 0.5)
    return rounded(ops, ops.multiply(g, ops.add(half, ops.multiply(single, half_slope))), x)


@fused(
    derivative=lambda ops, needs, g, x, approximate: [
        blockwise(partial(_gelu_gradient, ops, approximate=approximate), g, x)
    ],
    exact=True,
    fast=lambda ops, x, approximate="none": blockwise(partial(_gelu, ops, approximate=approximate), x),
    floating=True,
    check=_check_gelu,
    method=False,
    numpy=(),
    samples=over((3, 4), {}, {"approximate": "tanh"}),
    special=(
        Special((0.0,), 0.0, (0.5,)),
        Special((1000.0,), 1000.0, (1.0,)),
        Special((-1000.0,), 0.0, (0.0,)),
    ),
)
def gelu(ops, x, /, approximate="none"):
    """x · Φ(x), where Φ is the distribution function of the standard normal distribution.

    `approximate="none"` computes Φ by the error function, `"tanh"` by the approximation that GPT-2 and BERT's first
    code used; they differ by up to 5e-4.

    Hendrycks and Gimpel, "Gaussian error linear units", 2016.

    >>> import retrograd as rg
    >>> rg.gelu(rg.tensor([0.0, 1000.0]))
    tensor([   0., 1000.])
    """
    return _gelu(ops, x, approximate)
