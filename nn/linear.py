"""The linear map with a bias: every neuron a weighted sum of all inputs."""

from __future__ import annotations

import math
from typing import Any

from ..autograd_core.operations.contraction import linear
from ..autograd_core.operations.creation import zeros
from ..autograd_core.promotion import DEFAULT_FLOAT
from ..autograd_core.tensor import Tensor
from . import init
from .checks import matching, wrong_last_axis
from .module import Module
from .parameter import Parameter


class Linear(Module):
    """y = x · weightᵀ + bias along the last axis: (…, in_features) → (…, out_features).

    Parameters: `weight` (out_features, in_features), `bias` (out_features,), both uniform in ±1/√in_features.

    Args:
        bias: False leaves the bias out. dtype: of the parameters, and so of the input.
    Raises:
        ValueError: the last axis is not in_features. TypeError: the input has another dtype than the weight.

    >>> import retrograd as rg
    >>> layer = rg.nn.Linear(784, 10)
    >>> layer(rg.zeros((64, 784))).shape
    (64, 10)
    >>> layer(rg.zeros((64, 28, 28)))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: Linear: expected in_features=784 numbers along the last axis, got a float32 ...
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, dtype: Any = DEFAULT_FLOAT):
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(zeros(out_features, in_features, dtype=dtype))
        self.bias = Parameter(zeros(out_features, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights."""
        if self.in_features:
            bound = 1 / math.sqrt(self.in_features)
            init.uniform_(self.weight, -bound, bound)
            if self.bias is not None:
                init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        x = matching(input, self.weight)
        if x.array.shape[-1:] != self.weight.array.shape[1:]:
            raise wrong_last_axis(x, self.weight.shape[1], "in_features")
        return linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Identity(Module):
    """Gives its input back; takes any arguments, and ignores them, so that it can stand in for any layer."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        return input
