"""New tensors from a shape: leaves on the current backend, float32 unless said otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...backends import Backend, get_backend
from ..context import current_backend
from ..define import public
from ..promotion import DEFAULT_FLOAT, DEFAULT_INT
from ..tensor import Tensor, asarray, new_leaf

if TYPE_CHECKING:
    from numpy.typing import DTypeLike


def _made(
    name: str, arguments: tuple[Any, ...], dtype: DTypeLike, backend: str | Backend | None, requires_grad: bool
) -> Tensor:
    dtype = np.dtype(dtype)
    if dtype.kind in "OSUMm":
        raise TypeError(f"a tensor holds numbers, and {dtype} is no dtype of numbers")
    place = current_backend() if backend is None else get_backend(backend) if isinstance(backend, str) else backend
    out = new_leaf(Tensor(getattr(place.xp, name)(*arguments, dtype=dtype if dtype.isnative else dtype.type)))
    return out.requires_grad_() if requires_grad else out


def _shape(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """`f(2, 3)` and `f((2, 3))` mean the same."""
    given = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    for n in given:
        if not isinstance(n, (int, np.integer)) or n < 0:
            raise ValueError(f"a shape is made of non-negative integers, got {tuple(given)}")
    return tuple(int(n) for n in given)


@public
def zeros(
    *shape: int | Sequence[int],
    dtype: DTypeLike = DEFAULT_FLOAT,
    backend: str | Backend | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of zeros: `rg.zeros(2, 3)` or `rg.zeros((2, 3))`.

    >>> import retrograd as rg
    >>> rg.zeros(2)
    tensor([0., 0.])
    """
    return _made("zeros", (_shape(shape),), dtype, backend, requires_grad)


@public
def empty(
    *shape: int | Sequence[int],
    dtype: DTypeLike = DEFAULT_FLOAT,
    backend: str | Backend | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor to be filled. Its elements are zeros, so that what depends on them by mistake is at least repeatable.

    >>> import retrograd as rg
    >>> rg.empty(2, 3).shape
    (2, 3)
    """
    return zeros(*shape, dtype=dtype, backend=backend, requires_grad=requires_grad)


@public
def ones(
    *shape: int | Sequence[int],
    dtype: DTypeLike = DEFAULT_FLOAT,
    backend: str | Backend | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of ones.

    >>> import retrograd as rg
    >>> rg.ones((1, 2))
    tensor([[1., 1.]])
    """
    return _made("ones", (_shape(shape),), dtype, backend, requires_grad)


@public
def full(
    shape: int | Sequence[int],
    value: complex,
    dtype: DTypeLike | None = None,
    backend: str | Backend | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor filled with `value`; its dtype follows the value (a float gives float32) unless named.

    >>> import retrograd as rg
    >>> rg.full((2,), 7)
    tensor([7, 7])
    """
    if dtype is None:
        dtype = asarray(value).dtype
    return _made("full", (_shape((shape,)), value), dtype, backend, requires_grad)


@public
def arange(
    start: float,
    stop: float | None = None,
    step: float = 1,
    dtype: DTypeLike | None = None,
    backend: str | Backend | None = None,
) -> Tensor:
    """Numbers from `start` (0 if only one is given) up to but without `stop`: int64 for integers, else float32.

    >>> import retrograd as rg
    >>> rg.arange(3)
    tensor([0, 1, 2])
    """
    if stop is None:
        start, stop = 0, start
    if step == 0:
        raise ValueError(f"arange from {start} to {stop} needs a step other than 0")
    if dtype is None:
        dtype = DEFAULT_INT if all(isinstance(v, (int, np.integer)) for v in (start, stop, step)) else DEFAULT_FLOAT
    return _made("arange", (start, stop, step), dtype, backend, False)


@public
def linspace(
    start: float,
    stop: float,
    num: int = 50,
    dtype: DTypeLike = DEFAULT_FLOAT,
    backend: str | Backend | None = None,
) -> Tensor:
    """`num` evenly spaced numbers from `start` to `stop`, both included.

    >>> import retrograd as rg
    >>> rg.linspace(0, 1, 3)
    tensor([0. , 0.5, 1. ])
    """
    return _made("linspace", (start, stop, num), dtype, backend, False)


@public
def eye(
    n: int, m: int | None = None, dtype: DTypeLike = DEFAULT_FLOAT, backend: str | Backend | None = None
) -> Tensor:
    """The n×m matrix with ones on the diagonal (square unless `m` is given).

    >>> import retrograd as rg
    >>> rg.eye(2)
    tensor([[1., 0.],
            [0., 1.]])
    """
    return _made("eye", (n, m), dtype, backend, False)


@public
def zeros_like(x: Tensor, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """Zeros with the shape, backend and (unless named) dtype of x.

    >>> import retrograd as rg
    >>> rg.zeros_like(rg.tensor([1, 2]))
    tensor([0, 0])
    """
    return _made("zeros", (x.shape,), dtype or x.dtype, x.backend, requires_grad)


@public
def empty_like(x: Tensor, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor to be filled, with the shape, backend and (unless given) dtype of `x`; its elements are zeros.

    >>> import retrograd as rg
    >>> rg.empty_like(rg.zeros(2, 3)).shape
    (2, 3)
    """
    return zeros_like(x, dtype, requires_grad)


@public
def ones_like(x: Tensor, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """Ones with the shape, backend and (unless named) dtype of x.

    >>> import retrograd as rg
    >>> rg.ones_like(rg.tensor([1, 2]))
    tensor([1, 1])
    """
    return _made("ones", (x.shape,), dtype or x.dtype, x.backend, requires_grad)


@public
def full_like(x: Tensor, value: complex, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """`value` everywhere, with the shape, backend and (unless named) dtype of x.

    >>> import retrograd as rg
    >>> rg.full_like(rg.tensor([1, 2]), 5)
    tensor([5, 5])
    """
    return _made("full", (x.shape, value), dtype or x.dtype, x.backend, requires_grad)
