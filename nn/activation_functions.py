"""Activation functions under PyTorch's names, in its order of arguments; `functional` offers them.

Where an axis is meant, `dim=` and `axis=` are both taken. `inplace` is taken for PyTorch's sake and changes nothing.
"""

from __future__ import annotations

from typing import Any

from ..autograd_core.errors import one_frame
from ..autograd_core.operations import activation, trigonometric
from ..autograd_core.operations import softmax as softmaxes
from ..autograd_core.record import tensor_ops as ops
from ..autograd_core.tensor import Tensor


@one_frame
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0).

    >>> import retrograd as rg
    >>> rg.nn.functional.relu(rg.tensor([-1.0, 0.0, 2.0]))
    tensor([0., 0., 2.])
    """
    return activation.relu(input)


@one_frame
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x for positive x, negative_slope · x otherwise.

    >>> import retrograd as rg
    >>> rg.nn.functional.leaky_relu(rg.tensor([-1.0, 0.0, 2.0]), 0.1)
    tensor([-0.1,  0. ,  2. ])
    """
    return activation.leaky_relu(input, negative_slope=negative_slope)


@one_frame
def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6).

    >>> import retrograd as rg
    >>> rg.nn.functional.relu6(rg.tensor([-1.0, 2.0, 9.0]))
    tensor([0., 2., 6.])
    """
    return activation.relu6(input)


@one_frame
def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x, but not below min_val nor above max_val.

    >>> import retrograd as rg
    >>> rg.nn.functional.hardtanh(rg.tensor([-3.0, 0.5, 3.0]))
    tensor([-1. ,  0.5,  1. ])
    """
    return activation.hardtanh(input, min_val, max_val)


@one_frame
def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x for positive x, alpha · (exp(x) - 1) otherwise.

    >>> import retrograd as rg
    >>> rg.nn.functional.elu(rg.tensor([-1000.0, 2.0]))
    tensor([-1.,  2.])
    """
    return activation.elu(input, alpha=alpha)


@one_frame
def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x · Φ(x); approximate="tanh" for the form that GPT-2 uses.

    >>> import retrograd as rg
    >>> rg.nn.functional.gelu(rg.tensor([0.0, 1000.0]))
    tensor([   0., 1000.])
    """
    return activation.gelu(input, approximate=approximate)


@one_frame
def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x · sigmoid(x).

    >>> import retrograd as rg
    >>> rg.nn.functional.silu(rg.tensor([0.0, 1000.0]))
    tensor([   0., 1000.])
    """
    return activation.silu(input)


@one_frame
def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x)).

    >>> import retrograd as rg
    >>> rg.nn.functional.sigmoid(rg.tensor([-1000.0, 0.0, 1000.0]))
    tensor([0. , 0.5, 1. ])
    """
    return activation.sigmoid(input)


@one_frame
def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)), without overflow.

    >>> import retrograd as rg
    >>> rg.nn.functional.logsigmoid(rg.tensor([-1000.0, -2000.0]))
    tensor([-1000., -2000.])
    """
    return activation.log_sigmoid(input)


@one_frame
def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent.

    >>> import retrograd as rg
    >>> rg.nn.functional.tanh(rg.tensor([-1000.0, 0.0, 1000.0]))
    tensor([-1.,  0.,  1.])
    """
    return trigonometric.tanh(input)


@one_frame
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta · x)) / beta, and x itself where beta · x is above threshold.

    >>> import retrograd as rg
    >>> rg.nn.functional.softplus(rg.tensor([-1000.0, 30.0]))
    tensor([ 0., 30.])
    """
    return activation.softplus(input, beta=beta, threshold=threshold)


@one_frame
def softmax(input: Tensor, dim: int | None = None, dtype: Any = None, *, axis: int | None = None) -> Tensor:
    """exp(x) / Σ exp(x) along `dim` (or `axis`; the last one by default); `dtype` casts first.

    >>> import retrograd as rg
    >>> rg.nn.functional.softmax(rg.tensor([0.0, 0.0]), dim=0)
    tensor([0.5, 0.5])
    """
    return softmaxes.softmax(_cast(input, dtype), axis=_axis(dim, axis, -1))


@one_frame
def log_softmax(input: Tensor, dim: int | None = None, dtype: Any = None, *, axis: int | None = None) -> Tensor:
    """log(softmax(x)) along `dim` (or `axis`; the last one by default); `dtype` casts first.

    >>> import retrograd as rg
    >>> rg.nn.functional.log_softmax(rg.tensor([0.0, 0.0]), dim=0)
    tensor([-0.6931472, -0.6931472])
    """
    return softmaxes.log_softmax(_cast(input, dtype), axis=_axis(dim, axis, -1))


def _axis(dim: int | None, axis: int | None, default: int) -> int:
    if dim is not None and axis is not None and dim != axis:
        raise TypeError(f"dim={dim} and axis={axis} are two names of one argument; give one of them")
    return dim if dim is not None else axis if axis is not None else default


def _cast(x: Any, dtype: Any) -> Any:
    return x if dtype is None else ops.astype(x, dtype=dtype)
