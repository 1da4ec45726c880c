"""Names that users of PyTorch and NumPy reach for, each a line in terms of the operations."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..define import method, public
from ..dispatch import FUNCTIONS
from ..tensor import TENSOR_TYPES, Tensor, asarray
from .indexing import take_along_axis


@method
def clone(x: Tensor) -> Tensor:
    """A copy, through which gradients flow."""
    return FUNCTIONS["positive"](x)


@method
def contiguous(x: Tensor) -> Tensor:
    """The same values in row-major order: x itself where they lie so already."""
    return x if x.array.flags.c_contiguous else FUNCTIONS["positive"](FUNCTIONS["reshape"](x, shape=x.shape))


@method
def numel(x: Tensor) -> int:
    """Number of elements: `size` in NumPy's words."""
    return x.size


@method
def dim(x: Tensor) -> int:
    """Number of axes: `ndim` in NumPy's words."""
    return x.ndim


@public
@method
def gather(x: Tensor, axis: int, index: Tensor) -> Tensor:
    """`take_along_axis` with PyTorch's order of arguments.

    >>> import retrograd as rg
    >>> rg.gather(rg.tensor([[1, 2], [3, 4]]), 1, rg.tensor([[0], [1]]))
    tensor([[1],
            [4]])
    """
    return take_along_axis(x, index, axis)


@public
def isclose(x: Any, y: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """True where |x - y| ≤ atol + rtol·|y|, as `numpy.isclose`.

    >>> import retrograd as rg
    >>> rg.isclose(rg.tensor([1.0, 2.0]), rg.tensor([1.0, 2.1]))
    tensor([ True, False])
    """
    x, y = (v.detach() if type(v) in TENSOR_TYPES else asarray(v) for v in (x, y))
    near = (abs(x - y) <= abs(y) * rtol + atol) | (x == y)
    return near | (FUNCTIONS["isnan"](x) & FUNCTIONS["isnan"](y)) if equal_nan else near


@public
def allclose(x: Any, y: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether all elements are close; reads the values.

    >>> import retrograd as rg
    >>> rg.allclose(rg.tensor([1.0]), rg.tensor([1.0 + 1e-7]))
    True
    """
    return bool(isclose(x, y, rtol, atol, equal_nan).all())


@public
def array_equal(x: Any, y: Any) -> bool:
    """Whether shapes and all elements are equal; reads the values.

    >>> import retrograd as rg
    >>> rg.array_equal(rg.tensor([1, 2]), rg.tensor([1, 2]))
    True
    """
    return np.shape(x) == np.shape(y) and bool(FUNCTIONS["equal"](x, y).all())
