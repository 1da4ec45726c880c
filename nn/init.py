"""Values that parameters start from. Every function changes a tensor in place and returns it; draws come from the
framework's random stream (`rg.manual_seed`), so that the same seed gives the same model on every backend."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ..autograd_core.context import no_grad, use_backend
from ..autograd_core.errors import one_frame
from ..autograd_core.inplace import overwrite
from ..autograd_core.operations.random import Generator, normal, uniform
from ..autograd_core.tensor import Tensor

# How much wider the weights before an activation must be spread, so that the variance stays the same behind it.
_GAINS = {
    "linear": 1.0,
    "conv1d": 1.0,
    "conv2d": 1.0,
    "sigmoid": 1.0,
    "tanh": 5.0 / 3.0,
    "relu": math.sqrt(2.0),
    "selu": 3.0 / 4.0,
}


_off: ContextVar[bool] = ContextVar("no_init", default=False)


@contextmanager
def no_init() -> Iterator[None]:
    """Inside, every function here leaves its tensor as it is: for models whose values are about to be loaded.

    >>> import retrograd as rg
    >>> with rg.nn.init.no_init():
    ...     layer = rg.nn.Linear(2, 1)
    >>> layer.weight.tolist()
    [[0.0, 0.0]]
    """
    token = _off.set(True)
    try:
        yield
    finally:
        _off.reset(token)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that an activation asks for; `param` is the negative slope of leaky_relu (0.01 if not given).

    >>> from retrograd.nn import init
    >>> init.calculate_gain("tanh")
    1.6666666666666667
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else float(param)
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity not in _GAINS:
        raise ValueError(f"no gain is known for {nonlinearity!r}; known are leaky_relu, {', '.join(_GAINS)}")
    return _GAINS[nonlinearity]


def fans(tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (out, in, …): numbers summed up for one output, outputs that one number reaches.

    >>> import retrograd as rg
    >>> rg.nn.init.fans(rg.zeros((128, 784)))
    (784, 128)
    >>> rg.nn.init.fans(rg.zeros((32, 16, 3, 3)))
    (144, 288)
    """
    if tensor.ndim < 2:
        raise ValueError(f"fan in and fan out need a weight (out, in, …) of two axes or more, got shape {tensor.shape}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Numbers evenly distributed in [a, b).

    >>> import retrograd as rg
    >>> w = rg.nn.init.uniform_(rg.zeros(100), -0.1, 0.1)
    >>> bool((abs(w) <= 0.1).all())
    True
    """
    return _fill(tensor, uniform, a, b, generator)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Numbers of the normal distribution with this mean and standard deviation.

    >>> import retrograd as rg
    >>> w = rg.nn.init.normal_(rg.zeros(10_000), std=0.02)
    >>> 0.019 < w.std().item() < 0.021
    True
    """
    return _fill(tensor, normal, mean, std, generator)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """`val` everywhere.

    >>> import retrograd as rg
    >>> rg.nn.init.constant_(rg.zeros(2), 0.5)
    tensor([0.5, 0.5])
    """
    if _off.get():
        return tensor
    with no_grad():
        return overwrite(tensor, val)


def zeros_(tensor: Tensor) -> Tensor:
    """0 everywhere.

    >>> import retrograd as rg
    >>> rg.nn.init.zeros_(rg.ones(2))
    tensor([0., 0.])
    """
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """1 everywhere.

    >>> import retrograd as rg
    >>> rg.nn.init.ones_(rg.zeros(2))
    tensor([1., 1.])
    """
    return constant_(tensor, 1.0)


@one_frame
def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform in ±gain · √(6 / (fan_in + fan_out)) (Glorot and Bengio 2010): for tanh and sigmoid networks.

    >>> import retrograd as rg
    >>> w = rg.nn.init.xavier_uniform_(rg.zeros((10, 20)))
    >>> bool((abs(w) <= (6 / 30) ** 0.5).all())
    True
    """
    bound = gain * math.sqrt(6.0 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


@one_frame
def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal with standard deviation gain · √(2 / (fan_in + fan_out)) (Glorot and Bengio 2010).

    >>> import retrograd as rg
    >>> w = rg.nn.init.xavier_normal_(rg.zeros(100, 100))
    >>> 0.095 < w.std().item() < 0.105
    True
    """
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(fans(tensor))), generator)


@one_frame
def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Uniform in ±gain · √(3 / fan) (He et al. 2015): for ReLU networks.

    Args:
        a: the negative slope of leaky_relu. mode: "fan_in" keeps the variance of values, "fan_out" that of gradients.

    >>> import retrograd as rg
    >>> w = rg.nn.init.kaiming_uniform_(rg.zeros((10, 6)), nonlinearity="relu")
    >>> bool((abs(w) <= 1).all())
    True
    """
    bound = math.sqrt(3.0) * _he(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


@one_frame
def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Normal with standard deviation gain / √fan (He et al. 2015): for ReLU networks.

    >>> import retrograd as rg
    >>> w = rg.nn.init.kaiming_normal_(rg.zeros(100, 200), nonlinearity="relu")
    >>> 0.095 < w.std().item() < 0.105
    True
    """
    return normal_(tensor, 0.0, _he(tensor, a, mode, nonlinearity), generator)


def _he(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    fan = fans(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fan, 1))


def _fill(tensor: Tensor, draw: Any, one: float, other: float, generator: Generator | None) -> Tensor:
    if _off.get():
        return tensor
    # Half precision is drawn in single and rounded; a stream has no numbers of 16 bits.
    dtype = tensor.dtype if tensor.dtype.itemsize >= 4 else "float32"
    with no_grad(), use_backend(tensor.backend):
        return overwrite(tensor, draw(tensor.shape, one, other, dtype=dtype, generator=generator))
