"""Sums, products, quotients, powers; the larger and the smaller of two; choice by a condition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..define import method, public, record
from ..dispatch import FUNCTIONS
from ..samples import Sample, Special, calls, draw, over, pairs, reals
from ..tensor import Tensor, TensorLike


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g: g, y=lambda ops, g: g),
    operators=("__add__", "__radd__"),
    expression="x + y",
    samples=pairs(),
)
def add(xp, x, y, /):
    """x + y, with broadcasting.

    >>> import retrograd as rg
    >>> rg.add(rg.tensor([1.0, 2.0]), 10)
    tensor([11., 12.])
    """
    return xp.add(x, y)


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g: g, y=lambda ops, g: ops.negative(g)),
    operators=("__sub__", "__rsub__"),
    expression="x - y",
    samples=pairs(),
)
def subtract(xp, x, y, /):
    """x - y, with broadcasting.

    >>> import retrograd as rg
    >>> rg.subtract(rg.tensor([3, 5]), 1)
    tensor([2, 4])
    """
    return xp.subtract(x, y)


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g, y: ops.multiply(g, y), y=lambda ops, g, x: ops.multiply(g, x)),
    operators=("__mul__", "__rmul__"),
    expression="x * y",
    samples=pairs(),
)
def multiply(xp, x, y, /):
    """x · y, element by element, with broadcasting.

    >>> import retrograd as rg
    >>> rg.multiply(rg.tensor([1.0, 2.0]), rg.tensor([3.0, 4.0]))
    tensor([3., 8.])
    """
    return xp.multiply(x, y)


@record(
    "elementwise",
    derivatives=dict(
        x=lambda ops, g, y: ops.divide(g, y),
        y=lambda ops, g, out, y: ops.negative(ops.divide(ops.multiply(g, out), y)),
    ),
    floating=True,
    operators=("__truediv__", "__rtruediv__"),
    numpy=("divide", "true_divide"),
    expression="x / y",
    samples=pairs(0.5, 2.0),
)
def divide(xp, x, y, /):
    """x / y, with broadcasting. Integers are divided as the default float.

    >>> import retrograd as rg
    >>> rg.divide(rg.tensor([1, 2]), 2)
    tensor([0.5, 1. ])
    """
    return xp.divide(x, y)


@record("elementwise", operators=("__floordiv__", "__rfloordiv__"), samples=pairs(0.5, 2.0))
def floor_divide(xp, x, y, /):
    """The largest integer not above x / y, in the operands' dtype. Constant between jumps: no gradient.

    >>> import retrograd as rg
    >>> rg.floor_divide(rg.tensor([7, -7]), 2)
    tensor([ 3, -4])
    """
    return xp.floor_divide(x, y)


@record(
    "elementwise",
    derivatives=dict(
        x=lambda ops, g: g,
        y=lambda ops, g, x, y: ops.negative(ops.multiply(g, ops.floor_divide(x, y))),
    ),
    operators=("__mod__", "__rmod__"),
    numpy=("remainder", "mod"),
    samples=calls(lambda rng: Sample((np.array([0.7, 2.3, -1.2, -3.9]), np.array([1.0, 0.9, 0.8, -1.7])))),
)
def remainder(xp, x, y, /):
    """x - y · floor(x / y): what is left of a division, with the sign of y.

    >>> import retrograd as rg
    >>> rg.remainder(rg.tensor([7, -7]), 3)
    tensor([1, 2])
    """
    return xp.remainder(x, y)


def _power_base(ops, g, x, y):
    # y·x^(y-1), and 0 where y is 0: there x^(y-1) may be infinite, and 0·inf is not a number.
    if isinstance(y, (int, float)):
        return ops.multiply(g, ops.multiply(ops.power(x, y - 1), y)) if y else ops.multiply(g, 0.0)
    return ops.where(ops.equal(y, 0), 0.0, ops.multiply(g, ops.multiply(y, ops.power(x, ops.subtract(y, 1)))))


def _power_exponent(ops, g, out, x, y):
    # out·log x, and 0 where the base is 0: the limit for y > 0 (PyTorch's convention for all y ≥ 0).
    if isinstance(x, (int, float)):
        return ops.multiply(g, ops.multiply(out, math.log(x) if x > 0 else 0.0 if x == 0 else math.nan))
    safe = ops.where(ops.equal(x, 0), 1.0, x)
    return ops.multiply(g, ops.multiply(out, ops.log(safe)))


@record(
    "elementwise",
    derivatives=dict(x=_power_base, y=_power_exponent),
    operators=("__pow__", "__rpow__"),
    numpy=("power", "pow"),
    expression="x ** y",
    samples=pairs(0.5, 2.0, second=(-2.0, 3.0)),
    special=(
        Special((0.0, 2.0), 0.0, (0.0, 0.0)),
        Special((0.0, 0.0), 1.0, (0.0, 0.0)),
        Special((-2.0, 2.0), 4.0, (-4.0, None)),
    ),
)
def power(xp, x, y, /):
    """x to the power y, with broadcasting.

    >>> import retrograd as rg
    >>> rg.power(rg.tensor([1.0, 2.0, 3.0]), 2)
    tensor([1., 4., 9.])
    """
    return xp.power(x, y)


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g: ops.negative(g)),
    operators=("__neg__",),
    expression="-x",
    samples=reals(),
)
def negative(xp, x, /):
    """-x.

    >>> import retrograd as rg
    >>> rg.negative(rg.tensor([1.0, -2.0]))
    tensor([-1.,  2.])
    """
    return xp.negative(x)


@record(
    "elementwise", derivatives=dict(x=lambda ops, g: g), operators=("__pos__",), expression="x", samples=reals()
)
def positive(xp, x, /):
    """+x, a copy.

    >>> import retrograd as rg
    >>> rg.positive(rg.tensor([1.0]))
    tensor([1.])
    """
    return xp.positive(x)


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g, x: ops.multiply(ops.multiply(g, 2.0), x)),
    expression="x * x",
    samples=reals(),
)
def square(xp, x, /):
    """x².

    >>> import retrograd as rg
    >>> rg.square(rg.tensor([3.0]))
    tensor([9.])
    """
    return xp.square(x)


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g, x: ops.multiply(g, ops.sign(x))),
    operators=("__abs__",),
    numpy=("absolute", "abs"),
    expression="abs(x)",
    samples=reals(avoid=(0.0,)),
    special=(Special((0.0,), 0.0, (0.0,)), Special((-np.inf,), np.inf, (-1.0,))),
)
def abs_(xp, x, /):
    """|x|. The gradient at 0 is 0.

    >>> import retrograd as rg
    >>> rg.abs(rg.tensor([-1.5, 2.0]))
    tensor([1.5, 2. ])
    """
    return xp.absolute(x)


def _sign_rule(ops, g, out, x):
    if x.dtype.kind != "c":
        return ops.multiply(g, 0.0)
    # z/|z| moves along the circle only: the part of g along z goes, the rest is divided by |z|.
    size = ops.abs(x)
    along = ops.multiply(ops.conj(out), ops.real(ops.multiply(out, g)))
    zero = ops.equal(size, 0)
    return ops.where(zero, 0.0, ops.divide(ops.subtract(g, along), ops.where(zero, 1.0, size)))


@record(
    "elementwise",
    derivatives=dict(x=_sign_rule),
    expression="sign(x)",
    samples=reals(avoid=(0.0,)),
)
def sign(xp, x, /):
    """-1, 0 or 1, with gradient 0 everywhere; z/|z| of complex numbers, 0 at 0.

    >>> import retrograd as rg
    >>> rg.sign(rg.tensor([-3.0, 0.0, 2.0]))
    tensor([-1.,  0.,  1.])
    """
    return xp.sign(x)


def _winner(larger: str):
    """The rule of maximum and minimum: the winner gets the gradient, equal values half each (as in PyTorch)."""

    def first(ops, g, x, y):
        won = ops.astype(getattr(ops, larger)(x, y), dtype=g.dtype)
        tied = ops.multiply(ops.astype(ops.equal(x, y), dtype=g.dtype), 0.5)
        return ops.multiply(g, ops.add(won, tied))

    return dict(x=first, y=lambda ops, g, x, y: first(ops, g, y, x))


@record(
    "elementwise",
    derivatives=_winner("greater"),
    expression="maximum(x, y)",
    samples=pairs(apart=0.25),
    special=(
        Special((1.0, 1.0), 1.0, (0.5, 0.5)),
        Special((np.nan, 1.0), np.nan),
        Special((np.inf, 1.0), np.inf, (1.0, 0.0)),
    ),
)
def maximum(xp, x, y, /):
    """The larger of x and y; NaN where one is. Equal values share the gradient.

    >>> import retrograd as rg
    >>> rg.maximum(rg.tensor([1.0, 5.0]), 3.0)
    tensor([3., 5.])
    """
    return xp.maximum(x, y)


@record(
    "elementwise",
    derivatives=_winner("less"),
    expression="minimum(x, y)",
    samples=pairs(apart=0.25),
    special=(Special((1.0, 1.0), 1.0, (0.5, 0.5)), Special((-np.inf, 1.0), -np.inf, (1.0, 0.0))),
)
def minimum(xp, x, y, /):
    """The smaller of x and y; NaN where one is. Equal values share the gradient.

    >>> import retrograd as rg
    >>> rg.minimum(rg.tensor([1.0, 5.0]), 3.0)
    tensor([1., 3.])
    """
    return xp.minimum(x, y)




@record(
    "elementwise",
    derivatives=dict(
        x=lambda ops, g, condition: ops.where(condition, g, 0.0),
        y=lambda ops, g, condition: ops.where(condition, 0.0, g),
    ),
    promote=("x", "y"),
    into=lambda xp, out, condition, x, y: [(xp.copyto, (out, y)), (xp.copyto, (out, x, "same_kind", condition))],
    method=False,
    expression="x if condition else y",
    samples=calls(
        lambda rng: Sample((rng.random((3, 4)) > 0.5, draw(rng, (3, 4)), draw(rng, (3, 4)))),
        lambda rng: Sample((rng.random((3, 1)) > 0.5, draw(rng, (4,)), draw(rng, ()))),
        lambda rng: Sample((rng.random((0, 2)) > 0.5, draw(rng, (0, 2)), draw(rng, (2,)))),
    ),
)
def where(xp, condition, x, y, /):
    """x where `condition` (bool) is true, y elsewhere, with broadcasting.

    The gradient of the branch not taken is 0, whatever that branch computed; but a NaN made *before* `where`, as in
    `where(x > 0, sqrt(x), 0)` at x < 0, reaches x as NaN: make the argument safe first.

    >>> import retrograd as rg
    >>> x = rg.tensor([-1.0, 2.0])
    >>> rg.where(x > 0, x, 0.0)
    tensor([0., 2.])
    """
    return xp.where(condition, x, y)


def _clip_rule(ops, g, x, low, high):
    inside = None if low is None else ops.greater_equal(x, low)
    if high is not None:
        below = ops.less_equal(x, high)
        inside = below if inside is None else ops.logical_and(inside, below)
    return g if inside is None else ops.where(inside, g, 0.0)


@record(
    "elementwise",
    derivatives=dict(x=_clip_rule),
    method=False,
    public="ops",
    numpy=(),
    samples=over((3, 4), {"low": -1.0, "high": 1.0}, {"low": 0.5}, {"high": -0.5}),
    special=(Special((np.array([1.0, 2.0, np.nan]),), np.array([1.0, 2.0, np.nan])),),
)
def clip_numbers(xp, x, /, low: float | None = None, high: float | None = None):
    """`clip` between two numbers. The gradient is 1 inside and at the bounds, 0 outside."""
    return x.copy() if low is None and high is None else xp.clip(x, low, high)


@public
@method
def clip(x: TensorLike, min: TensorLike | None = None, max: TensorLike | None = None) -> Tensor:
    """x, but not below `min` nor above `max` (numbers or tensors; None: no bound). NaN stays NaN.

    >>> import retrograd as rg
    >>> rg.clip(rg.tensor([-2.0, 0.5, 3.0]), -1, 1)
    tensor([-1. ,  0.5,  1. ])
    """
    # Between numbers that do not change the dtype in one step; a float bound of integers promotes them, as elsewhere.
    kinds = (int, type(None)) if getattr(getattr(x, "dtype", None), "kind", "f") in "biu" else (int, float, type(None))
    if all(isinstance(v, kinds) for v in (min, max)):
        return FUNCTIONS["clip_numbers"](x, low=min, high=max)
    bounded: Any = x if min is None else maximum(x, min)
    return bounded if max is None else minimum(bounded, max)
