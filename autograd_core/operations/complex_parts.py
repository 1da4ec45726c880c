"""Parts of complex numbers. Gradients follow PyTorch's convention: dL/dRe(z) + i·dL/dIm(z)."""

from __future__ import annotations

import numpy as np

from ..define import record
from ..samples import Sample, calls, draw

_complex = calls(
    lambda rng: Sample((draw(rng, (3, 4)) + 1j * draw(rng, (3, 4)),)),
    lambda rng: Sample((np.asarray(draw(rng, ()) + 1j * draw(rng, ())),)),
    lambda rng: Sample((draw(rng, (2, 1, 3)),)),
    lambda rng: Sample((draw(rng, (0, 3)),)),
)


@record("elementwise", derivatives=dict(x=lambda ops, g: g), numpy=("real",), samples=_complex)
def real(xp, x, /):
    """The real part.

    >>> import retrograd as rg
    >>> rg.real(rg.tensor([1 + 2j]))
    tensor([1.])
    """
    return x.real.copy() if x.dtype.kind == "c" else x.copy()


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g, x: ops.multiply(g, 1j if x.dtype.kind == "c" else 0.0)),
    numpy=("imag",),
    samples=_complex,
)
def imag(xp, x, /):
    """The imaginary part; zeros for real numbers.

    >>> import retrograd as rg
    >>> rg.imag(rg.tensor([1 + 2j]))
    tensor([2.])
    """
    return x.imag.copy() if x.dtype.kind == "c" else xp.zeros_like(x)


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g: ops.conj(g)),
    numpy=("conj", "conjugate"),
    samples=_complex,
)
def conj(xp, x, /):
    """The complex conjugate; a copy of real numbers.

    >>> import retrograd as rg
    >>> rg.conj(rg.tensor([1 + 2j]))
    tensor([1.-2.j], dtype=complex64)
    """
    return xp.conj(x)
