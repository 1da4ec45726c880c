"""Exponentials, logarithms, the square root, and the error function."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..define import record
from ..samples import Special, reals


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g, out: ops.multiply(g, out)),
    floating=True,
    expression="exp(x)",
    samples=reals(),
    special=(Special((-np.inf,), 0.0, (0.0,)), Special((0.0,), 1.0, (1.0,)), Special((np.nan,), np.nan, (np.nan,))),
)
def exp(xp, x, /):
    """e to the power x.

    >>> import retrograd as rg
    >>> rg.exp(rg.tensor([0.0]))
    tensor([1.])
    """
    return xp.exp(x)


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g, out: ops.add(g, ops.multiply(g, out))),
    floating=True,
    expression="expm1(x)",
    samples=reals(),
)
def expm1(xp, x, /):
    """eˣ - 1, exact to rounding near 0 too.

    >>> import retrograd as rg
    >>> rg.expm1(rg.tensor([0.0]))
    tensor([0.])
    """
    return xp.expm1(x)


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g, x: ops.divide(g, x)),
    floating=True,
    expression="log(x)",
    samples=reals(0.2, 3.0),
    special=(Special((0.0,), -np.inf, (np.inf,)), Special((1.0,), 0.0, (1.0,)), Special((np.inf,), np.inf, (0.0,))),
)
def log(xp, x, /):
    """Natural logarithm; -inf at 0, NaN below.

    >>> import retrograd as rg
    >>> rg.log(rg.tensor([1.0]))
    tensor([0.])
    """
    return xp.log(x)


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g, x: ops.divide(g, ops.add(x, 1))),
    floating=True,
    expression="log1p(x)",
    samples=reals(-0.7, 2.0),
)
def log1p(xp, x, /):
    """log(1 + x), exact to rounding near 0 too.

    >>> import retrograd as rg
    >>> rg.log1p(rg.tensor([0.0]))
    tensor([0.])
    """
    return xp.log1p(x)


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g, x: ops.divide(g, ops.multiply(x, math.log(2)))),
    floating=True,
    expression="log2(x)",
    samples=reals(0.2, 3.0),
)
def log2(xp, x, /):
    """Logarithm to base 2.

    >>> import retrograd as rg
    >>> rg.log2(rg.tensor([8.0]))
    tensor([3.])
    """
    return xp.log2(x)


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g, x: ops.divide(g, ops.multiply(x, math.log(10)))),
    floating=True,
    expression="log10(x)",
    samples=reals(0.2, 3.0),
)
def log10(xp, x, /):
    """Logarithm to base 10.

    >>> import retrograd as rg
    >>> round(rg.log10(rg.tensor(100.0)).item(), 4)
    2.0
    """
    return xp.log10(x)


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g, out: ops.divide(g, ops.add(out, out))),
    floating=True,
    expression="sqrt(x)",
    samples=reals(0.2, 3.0),
    special=(Special((0.0,), 0.0, (np.inf,)), Special((np.inf,), np.inf, (0.0,)), Special((4.0,), 2.0, (0.25,))),
)
def sqrt(xp, x, /):
    """Square root; NaN below 0. The gradient at 0 is infinite: add a small number under a root that can reach 0.

    >>> import retrograd as rg
    >>> rg.sqrt(rg.tensor([4.0]))
    tensor([2.])
    """
    return xp.sqrt(x)


_TWO_OVER_ROOT_PI = 2 / math.sqrt(math.pi)


@record(
    "elementwise",
    derivatives=dict(
        x=lambda ops, g, x: ops.multiply(g, ops.multiply(ops.exp(ops.negative(ops.square(x))), _TWO_OVER_ROOT_PI))
    ),
    floating=True,
    numpy=(),
    expression="erf(x)",
    samples=reals(-3.0, 3.0),
    special=(
        Special((0.0,), 0.0, (_TWO_OVER_ROOT_PI,)),
        Special((np.inf,), 1.0, (0.0,)),
        Special((-np.inf,), -1.0, (0.0,)),
    ),
)
def erf(xp, x, /):
    """The error function 2/√π ∫₀ˣ exp(-t²) dt; absolute error below 5e-7 in float32 and 3e-16 in float64.

    In float64 rational approximations in three ranges of |x| (W. J. Cody, "Rational Chebyshev approximations for the
    error function", Mathematics of Computation 23, 1969); in float32 a single one, fitted for this file.

    >>> import retrograd as rg
    >>> rg.erf(rg.tensor([0.0]))
    tensor([0.])
    """
    if x.dtype != np.float64:
        return _erf_single(xp, x.astype(np.float32)).astype(x.dtype)
    size = xp.absolute(x)
    near = _rational(size * size, _NEAR) * x  # |x| ≤ 0.46875
    bounded = xp.minimum(xp.maximum(size, 0.46875), 6.0)  # erf(6) is 1 to the last bit
    tail = xp.exp(-bounded * bounded)
    middle = 1 - tail * _rational(bounded, _MIDDLE)  # up to 4
    inverse_square = 1 / (bounded * bounded)
    far = 1 - tail / bounded * (1 / math.sqrt(math.pi) - inverse_square * _rational(inverse_square, _FAR))
    signed = xp.where(bounded <= 4, middle, far) * xp.sign(x)
    return xp.where(size <= 0.46875, near, xp.where(xp.isnan(x), x, signed))


def _erf_single(xp: Any, x: Any) -> Any:
    bounded = xp.minimum(xp.maximum(x, -_SINGLE_END), _SINGLE_END)
    # At its end the quotient is above 1 by a rounding or two, so that what is cut to 1 is 1 exactly from there on.
    return xp.minimum(xp.maximum(bounded * _rational(bounded * bounded, _SINGLE), -1), 1)


def _rational(z: Any, coefficients: tuple[tuple[float, ...], tuple[float, ...]]) -> Any:
    """P(z) / Q(z), each by Horner's rule, highest power first."""
    top, bottom = (_polynomial(z, c) for c in coefficients)
    return top / bottom


def _polynomial(z: Any, coefficients: tuple[float, ...]) -> Any:
    total = z * coefficients[0] + coefficients[1]
    for c in coefficients[2:]:
        total *= z
        total += c
    return total


# erf(x)/x on |x| ≤ 3.92, where erf is 1 in float32: least squares reweighted towards equal error, relative error 2e-8.
_SINGLE_END = 4.0
_SINGLE = (
    (
        2.050117913472192e-6,
        2.848771691801931e-4,
        3.765400903643224e-3,
        5.27480650745722e-2,
        1.9040152614691555e-1,
        1.1283791463596016,
    ),
    (
        3.8091737815779655e-5,
        1.162481573169111e-3,
        1.4968788680655886e-2,
        1.141070636305277e-1,
        5.020717020517864e-1,
        1.0,
    ),
)
_NEAR = (
    (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
_MIDDLE = (
    (
        2.15311535474403846e-8,
        5.64188496988670089e-1,
        8.88314979438837594,
        6.61191906371416295e1,
        2.98635138197400131e2,
        8.81952221241769090e2,
        1.71204761263407058e3,
        2.05107837782607147e3,
        1.23033935479799725e3,
    ),
    (
        1.0,
        1.57449261107098347e1,
        1.17693950891312499e2,
        5.37181101862009858e2,
        1.62138957456669019e3,
        3.29079923573345963e3,
        4.36261909014324716e3,
        3.43936767414372164e3,
        1.23033935480374942e3,
    ),
)
_FAR = (
    (
        1.63153871373020978e-2,
        3.05326634961232344e-1,
        3.60344899949804439e-1,
        1.25781726111229246e-1,
        1.60837851487422766e-2,
        6.58749161529837803e-4,
    ),
    (
        1.0,
        2.56852019228982242,
        1.87295284992346725,
        5.27905102951428412e-1,
        6.05183413124413191e-2,
        2.33520497626869185e-3,
    ),
)
