"""Sine, cosine and their hyperbolic kin."""

from __future__ import annotations

import numpy as np

from ..define import record
from ..samples import Special, reals


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g, x: ops.multiply(g, ops.cos(x))),
    floating=True,
    expression="sin(x)",
    samples=reals(),
)
def sin(xp, x, /):
    """Sine of x in radians.

    >>> import retrograd as rg
    >>> rg.sin(rg.tensor([0.0]))
    tensor([0.])
    """
    return xp.sin(x)


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g, x: ops.negative(ops.multiply(g, ops.sin(x)))),
    floating=True,
    expression="cos(x)",
    samples=reals(),
)
def cos(xp, x, /):
    """Cosine of x in radians.

    >>> import retrograd as rg
    >>> rg.cos(rg.tensor([0.0]))
    tensor([1.])
    """
    return xp.cos(x)


def _tanh_rule(ops, g, out):
    return ops.subtract(g, ops.multiply(g, ops.multiply(out, out)))  # g·(1 - out²), without a Python scalar in it


@record(
    "elementwise",
    derivatives=dict(x=_tanh_rule),
    floating=True,
    expression="tanh(x)",
    samples=reals(),
    special=(Special((np.inf,), 1.0, (0.0,)), Special((-np.inf,), -1.0, (0.0,)), Special((0.0,), 0.0, (1.0,))),
)
def tanh(xp, x, /):
    """Hyperbolic tangent.

    >>> import retrograd as rg
    >>> rg.tanh(rg.tensor([0.0]))
    tensor([0.])
    """
    return xp.tanh(x)
