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
from .functional import bilinear
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


class Bilinear(Module):
    """y[k] = Σ x1[i] · weight[k, i, j] · x2[j] + bias[k]: (…, in1_features), (…, in2_features) → (…, out_features).

    Parameters: `weight` (out_features, in1_features, in2_features), `bias` (out_features,), in ±1/√in1_features.

    >>> import retrograd as rg
    >>> rg.nn.Bilinear(3, 4, 2)(rg.zeros((5, 3)), rg.zeros((5, 4))).shape
    (5, 2)
    """

    def __init__(
        self, in1_features: int, in2_features: int, out_features: int, bias: bool = True, *, dtype: Any = DEFAULT_FLOAT
    ):
        super().__init__()
        self.in1_features = in1_features
        self.in2_features = in2_features
        self.out_features = out_features
        self.weight = Parameter(zeros(out_features, in1_features, in2_features, dtype=dtype))
        self.bias = Parameter(zeros(out_features, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights."""
        if self.in1_features:
            bound = 1 / math.sqrt(self.in1_features)
            for parameter in self.parameters():
                init.uniform_(parameter, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        first, second = matching(input1, self.weight), matching(input2, self.weight)
        for x, expected, name in (
            (first, self.in1_features, "in1_features"),
            (second, self.in2_features, "in2_features"),
        ):
            if x.shape[-1:] != (expected,):
                raise wrong_last_axis(x, expected, name)
        return bilinear(first, second, self.weight, self.bias)

    def extra_repr(self) -> str:
        sizes = f"in1_features={self.in1_features}, in2_features={self.in2_features}, out_features={self.out_features}"
        return f"{sizes}, bias={self.bias is not None}"


class Identity(Module):
    """Gives its input back; takes any arguments, and ignores them, so that it can stand in for any layer.

    >>> import retrograd as rg
    >>> rg.nn.Identity()(rg.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        return input
