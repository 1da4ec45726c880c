"""Where NumPy has two ways to one result, the one that begins quicker: on small arrays nothing else counts.

    x.sum(axis=0)             goes through Python; np.add.reduce is what it ends in
    np.matmul(x, y)           is made for batches; np.dot takes two matrices to the same BLAS call in half the time
    np.maximum(x, 0)          looks at what a number is, each time anew; an array of no axes is known
    np.broadcast_to(x, …)     makes an iterator; a view needs only its strides

The names are those of the operations' records; a record's own forward stays the meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np


def matmul(x: np.ndarray, y: np.ndarray) -> Any:
    """The product of two matrices, or of batches of them."""
    return np.dot(x, y) if x.ndim == 2 == y.ndim else np.matmul(x, y)


@lru_cache(64)
def _zero(dtype: np.dtype) -> np.ndarray:
    return np.zeros((), np.result_type(dtype, 0))  # the maximum of a flag and 0 is an integer


def relu(x: np.ndarray) -> Any:
    """max(x, 0)."""
    return np.maximum(x, _zero(x.dtype))


@lru_cache(4096)
def _stretched(shape: tuple[int, ...], strides: tuple[int, ...], wanted: Any) -> tuple[int, ...] | None:
    """The strides of an array that is seen in a larger shape; None where that is left to NumPy."""
    lead = len(wanted) - len(shape)
    if lead < 0 or any(type(m) is not int or m < 1 for m in wanted):
        return None
    if any(n not in (1, m) for n, m in zip(shape, wanted[lead:], strict=True)):
        return None
    seen = [s if n == m else 0 for n, m, s in zip(shape, wanted[lead:], strides, strict=True)]
    return (*[0] * lead, *seen)


def broadcast_to(x: np.ndarray, shape: Any) -> np.ndarray:
    """A view of x in a larger shape, which cannot be written to."""
    strides = _stretched(x.shape, x.strides, shape) if x.flags.c_contiguous and type(shape) is tuple else None
    if strides is None:
        return np.broadcast_to(x, shape)
    view = np.ndarray(shape, x.dtype, x, 0, strides)
    view.setflags(write=False)
    return view


def _reduction(reduce: Any) -> Callable[..., Any]:
    """A ufunc's `reduce` with the defaults of the records: over everything, without the axes."""
    return lambda x, axis=None, keepdims=False: reduce(x, axis, None, None, keepdims)


_sum = _reduction(np.add.reduce)


def mean(x: np.ndarray, axis: Any = None, keepdims: bool = False) -> Any:
    """The sum by the number of elements; half precision is summed in single precision, as NumPy does."""
    if x.dtype.char not in "fd" or not x.size:
        return np.mean(x, axis=axis, keepdims=keepdims)
    total = _sum(x, axis, keepdims)
    return total / x.dtype.type(x.size // max(total.size, 1))


KERNELS: dict[str, Callable[..., Any]] = {
    "broadcast_to": broadcast_to,
    "matmul": matmul,
    "max": _reduction(np.maximum.reduce),
    "mean": mean,
    "min": _reduction(np.minimum.reduce),
    "relu": relu,
    "sum": _sum,
}
