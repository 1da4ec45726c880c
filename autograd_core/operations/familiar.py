"""Names that users of PyTorch and NumPy reach for, each a line or two in terms of the operations."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..define import method, public
from ..dispatch import FUNCTIONS
from ..tensor import TENSOR_TYPES, Tensor, TensorLike, asarray
from .indexing import take_along_axis


@method
def clone(x: Tensor) -> Tensor:
    """A copy, through which gradients flow."""
    return copy(x)


@public
@method
def copy(x: TensorLike) -> Tensor:
    """A copy, through which gradients flow: `clone` in NumPy's words.

    >>> import retrograd as rg
    >>> x = rg.tensor([1.0, 2.0])
    >>> y = rg.copy(x)
    >>> _ = y.zero_()
    >>> x
    tensor([1., 2.])
    """
    if getattr(x, "dtype", None) == np.bool_:  # NumPy has no +True
        return FUNCTIONS["astype"](x, dtype=np.bool_)
    return FUNCTIONS["positive"](x)


@method
def int_(x: Tensor) -> Tensor:
    """As int32, as in PyTorch; `astype("int64")` and `long()` give the default integer."""
    return FUNCTIONS["astype"](x, dtype=np.int32)


@method
def bool_(x: Tensor) -> Tensor:
    """False where an element is 0, True elsewhere."""
    return FUNCTIONS["astype"](x, dtype=np.bool_)


@public
@method
def t(x: TensorLike) -> Tensor:
    """The transpose of a matrix; a vector or a number as it is.

    >>> import retrograd as rg
    >>> rg.t(rg.zeros((2, 3))).shape
    (3, 2)
    """
    if np.ndim(x) > 2:
        raise ValueError(f"t() transposes a matrix, got {np.ndim(x)} axes; use .mT, .swapaxes or .permute")
    return FUNCTIONS["transpose"](x)


@method
def contiguous(x: Tensor) -> Tensor:
    """The same values in row-major order: x itself where they lie so already."""
    if x.array.flags.c_contiguous:
        return x
    flat = FUNCTIONS["reshape"](x, shape=(x.size,))  # a copy, but where elements lie at equal distances
    return FUNCTIONS["reshape"](flat if flat.array.flags.c_contiguous else copy(flat), shape=x.shape)


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


@public
@method
def reciprocal(x: TensorLike) -> Tensor:
    """1 / x.

    >>> import retrograd as rg
    >>> rg.reciprocal(rg.tensor([2.0, 4.0]))
    tensor([0.5 , 0.25])
    """
    return FUNCTIONS["divide"](1.0, x)


@public
@method
def rsqrt(x: TensorLike) -> Tensor:
    """1 / √x.

    >>> import retrograd as rg
    >>> rg.rsqrt(rg.tensor([4.0]))
    tensor([0.5])
    """
    return FUNCTIONS["divide"](1.0, FUNCTIONS["sqrt"](x))


@public
@method
def tril(x: TensorLike, k: int = 0) -> Tensor:
    """The last two axes up to their k-th diagonal, zeros above it.

    >>> import retrograd as rg
    >>> rg.tril(rg.ones((2, 2)))
    tensor([[1., 0.],
            [1., 1.]])
    """
    x = asarray(x)
    return FUNCTIONS["where"](_diagonals(x) <= k, x, x.dtype.type(0))


@public
@method
def triu(x: TensorLike, k: int = 0) -> Tensor:
    """The last two axes from their k-th diagonal on, zeros below it.

    >>> import retrograd as rg
    >>> rg.triu(rg.ones((2, 2)), 1)
    tensor([[0., 1.],
            [0., 0.]])
    """
    x = asarray(x)
    return FUNCTIONS["where"](_diagonals(x) >= k, x, x.dtype.type(0))


def _diagonals(x: Tensor) -> Tensor:
    """The number of the diagonal that each element of the last two axes lies on: 0 the main one, above it positive."""
    if x.ndim < 2:
        raise ValueError(f"expected a matrix or a stack of matrices, got {x.ndim} axes")
    xp = x.backend.xp
    return Tensor(xp.arange(x.shape[-1])) - Tensor(xp.arange(x.shape[-2])[:, None])
