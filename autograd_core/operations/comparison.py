"""Comparisons and logic: results are booleans (integers for the bitwise ones on integers), and carry no gradient."""

from __future__ import annotations

import numpy as np

from ..define import record
from ..samples import Sample, calls, pairs, reals


@record("elementwise", operators=("__eq__",), expression="x == y", samples=pairs(apart=0.25))
def equal(xp, x, y, /):
    """x == y, element by element.

    >>> import retrograd as rg
    >>> rg.equal(rg.tensor([1, 2]), 2)
    tensor([False,  True])
    """
    return xp.equal(x, y)


@record("elementwise", operators=("__ne__",), expression="x != y", samples=pairs(apart=0.25))
def not_equal(xp, x, y, /):
    """x != y, element by element.

    >>> import retrograd as rg
    >>> rg.not_equal(rg.tensor([1, 2]), 2)
    tensor([ True, False])
    """
    return xp.not_equal(x, y)


@record("elementwise", operators=("__lt__",), expression="x < y", samples=pairs(apart=0.25))
def less(xp, x, y, /):
    """x < y, element by element.

    >>> import retrograd as rg
    >>> rg.less(rg.tensor([1, 2]), 2)
    tensor([ True, False])
    """
    return xp.less(x, y)


@record("elementwise", operators=("__le__",), expression="x <= y", samples=pairs(apart=0.25))
def less_equal(xp, x, y, /):
    """x <= y, element by element.

    >>> import retrograd as rg
    >>> rg.less_equal(rg.tensor([1, 3]), 2)
    tensor([ True, False])
    """
    return xp.less_equal(x, y)


@record("elementwise", operators=("__gt__",), expression="x > y", samples=pairs(apart=0.25))
def greater(xp, x, y, /):
    """x > y, element by element.

    >>> import retrograd as rg
    >>> rg.greater(rg.tensor([1, 3]), 2)
    tensor([False,  True])
    """
    return xp.greater(x, y)


@record("elementwise", operators=("__ge__",), expression="x >= y", samples=pairs(apart=0.25))
def greater_equal(xp, x, y, /):
    """x >= y, element by element.

    >>> import retrograd as rg
    >>> rg.greater_equal(rg.tensor([1, 2]), 2)
    tensor([False,  True])
    """
    return xp.greater_equal(x, y)


_masks = calls(
    lambda rng: Sample((rng.random((3, 4)) > 0.5, rng.random((4,)) > 0.5)),
    lambda rng: Sample((rng.random(()) > 0.5, rng.random((2,)) > 0.5)),
)
_mask = calls(lambda rng: Sample((rng.random((3, 4)) > 0.5,)), lambda rng: Sample((rng.random(()) > 0.5,)))


@record("elementwise", expression="x and y", samples=_masks)
def logical_and(xp, x, y, /):
    """True where both are true (nonzero).

    >>> import retrograd as rg
    >>> rg.logical_and(rg.tensor([True, True]), rg.tensor([True, False]))
    tensor([ True, False])
    """
    return xp.logical_and(x, y)


@record("elementwise", expression="x or y", samples=_masks)
def logical_or(xp, x, y, /):
    """True where at least one is true (nonzero).

    >>> import retrograd as rg
    >>> rg.logical_or(rg.tensor([False, True]), False)
    tensor([False,  True])
    """
    return xp.logical_or(x, y)


@record("elementwise", samples=_masks)
def logical_xor(xp, x, y, /):
    """True where exactly one is true (nonzero).

    >>> import retrograd as rg
    >>> rg.logical_xor(rg.tensor([False, True]), True)
    tensor([ True, False])
    """
    return xp.logical_xor(x, y)


@record("elementwise", expression="not x", samples=_mask)
def logical_not(xp, x, /):
    """True where x is false (zero).

    >>> import retrograd as rg
    >>> rg.logical_not(rg.tensor([False, True]))
    tensor([ True, False])
    """
    return xp.logical_not(x)


@record("elementwise", operators=("__and__", "__rand__"), samples=_masks)
def bitwise_and(xp, x, y, /):
    """x & y on booleans and integers.

    >>> import retrograd as rg
    >>> rg.bitwise_and(rg.tensor([6]), 3)
    tensor([2])
    """
    return xp.bitwise_and(x, y)


@record("elementwise", operators=("__or__", "__ror__"), samples=_masks)
def bitwise_or(xp, x, y, /):
    """x | y on booleans and integers.

    >>> import retrograd as rg
    >>> rg.bitwise_or(rg.tensor([6]), 3)
    tensor([7])
    """
    return xp.bitwise_or(x, y)


@record("elementwise", operators=("__xor__", "__rxor__"), samples=_masks)
def bitwise_xor(xp, x, y, /):
    """x ^ y on booleans and integers.

    >>> import retrograd as rg
    >>> rg.bitwise_xor(rg.tensor([6]), 3)
    tensor([5])
    """
    return xp.bitwise_xor(x, y)


@record("elementwise", operators=("__invert__",), numpy=("invert", "bitwise_not"), samples=_mask)
def bitwise_invert(xp, x, /):
    """~x on booleans and integers.

    >>> import retrograd as rg
    >>> rg.bitwise_invert(rg.tensor([True, False]))
    tensor([False,  True])
    """
    return xp.invert(x)


_with_infinities = calls(lambda rng: Sample((np.array([0.0, np.nan, np.inf, -np.inf, 1.5]),)))


@record("elementwise", samples=_with_infinities)
def isnan(xp, x, /):
    """True where x is not a number.

    >>> import retrograd as rg
    >>> rg.isnan(rg.tensor([1.0, float("nan")]))
    tensor([False,  True])
    """
    return xp.isnan(x)


@record("elementwise", samples=_with_infinities)
def isinf(xp, x, /):
    """True where x is an infinity of either sign.

    >>> import retrograd as rg
    >>> rg.isinf(rg.tensor([1.0, float("-inf")]))
    tensor([False,  True])
    """
    return xp.isinf(x)


@record("elementwise", samples=reals())
def isfinite(xp, x, /):
    """True where x is neither an infinity nor NaN.

    >>> import retrograd as rg
    >>> rg.isfinite(rg.tensor([1.0, float("inf")]))
    tensor([ True, False])
    """
    return xp.isfinite(x)
