"""Normalization layers: values with mean 0 and variance 1, over the batch or within each example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ..autograd_core.context import no_grad
from ..autograd_core.errors import describe
from ..autograd_core.inplace import overwrite
from ..autograd_core.operations.creation import ones, zeros
from ..autograd_core.operations.normalization import layer_norm, rms_norm
from ..autograd_core.promotion import DEFAULT_FLOAT
from ..autograd_core.record import tensor_ops as ops
from ..autograd_core.tensor import Tensor, asarray
from . import functional as F
from .checks import matching
from .errors import refusal
from .module import Module
from .parameter import Parameter


class _BatchNorm(Module):
    """What the layers share; `_shapes` says which inputs they take."""

    _shapes: Mapping[int, str]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        dtype: Any = DEFAULT_FLOAT,
    ):
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.weight = Parameter(ones(num_features, dtype=dtype)) if affine else None
        self.bias = Parameter(zeros(num_features, dtype=dtype)) if affine and bias else None
        self.register_buffer("running_mean", zeros(num_features, dtype=dtype) if track_running_stats else None)
        self.register_buffer("running_var", ones(num_features, dtype=dtype) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", zeros((), dtype=np.int64) if track_running_stats else None)

    def reset_running_stats(self) -> None:
        """Forget the statistics of all batches so far."""
        with no_grad():
            for name, value in (("running_mean", 0), ("running_var", 1), ("num_batches_tracked", 0)):
                if getattr(self, name) is not None:
                    overwrite(getattr(self, name), value)

    def forward(self, input: Tensor) -> Tensor:
        like = self.weight if self.weight is not None else self.running_mean
        x = asarray(input) if like is None else matching(input, like)
        if x.ndim not in self._shapes or x.shape[1] != self.num_features:
            expected = " or ".join(self._shapes.values()).replace("C", str(self.num_features))
            raise refusal(ValueError, f"expected {expected} with num_features={self.num_features}, got a {describe(x)}")
        if not self.training and self.running_mean is not None:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        running = (self.running_mean, self.running_var) if self.training else (None, None)
        return F.batch_norm(x, *running, self.weight, self.bias, True, self._share(), self.eps)

    def _share(self) -> float | Tensor:
        """The share of this batch in the running averages; counts it."""
        if not self.training or self.num_batches_tracked is None:
            return 0.0
        with no_grad():
            counted = ops.add(self.num_batches_tracked, 1)
            overwrite(self.num_batches_tracked, counted)
            if self.momentum is not None:
                return self.momentum
            return ops.divide(1.0, ops.astype(counted, dtype=self.running_mean.dtype))

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """Each feature with mean 0 and variance 1 over the batch, times weight, plus bias: (N, C) or (N, C, L), same out.

    In training the batch's own statistics are used, and running averages of them kept; in evaluation the averages.

    Parameters: `weight` (C,) of ones, `bias` (C,) of zeros. Buffers: `running_mean`, `running_var` (C,) and
    `num_batches_tracked`, a 0-d int64.

    Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate shift",
    2015.

    Args:
        num_features: C. eps: added to the variance. momentum: the share of the newest batch in the running averages;
            None weighs all batches alike. affine: False leaves weight and bias out, bias=False
            the bias alone.
        track_running_stats: False keeps no averages, and evaluation uses the batch too.
    Raises:
        ValueError: other axes or features, or a batch of one value per feature in training.

    >>> import retrograd as rg
    >>> layer = rg.nn.BatchNorm1d(2)
    >>> out = layer(rg.tensor([[1.0, 10.0], [3.0, 30.0]]))
    >>> [round(m, 2) for m in layer.running_mean.tolist()]
    [0.2, 2.0]
    """

    _shapes = MappingProxyType({2: "(N, C)", 3: "(N, C, L)"})


class BatchNorm2d(_BatchNorm):
    """Each channel with mean 0 and variance 1 over the batch and all places: (N, C, H, W), same shape out.

    Arguments, parameters and buffers are those of BatchNorm1d.

    >>> import retrograd as rg
    >>> rg.nn.BatchNorm2d(16)(rg.rand(4, 16, 8, 8)).shape
    (4, 16, 8, 8)
    """

    _shapes = MappingProxyType({4: "(N, C, H, W)"})


class _RowNorm(Module):
    """What layers that normalize the last axes share."""

    def __init__(self, normalized_shape: int | Sequence[int], eps: float | None, elementwise_affine: bool, dtype: Any):
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.weight = Parameter(ones(self.normalized_shape, dtype=dtype)) if elementwise_affine else None

    def _checked(self, input: Any) -> Tensor:
        x = asarray(input) if self.weight is None else matching(input, self.weight)
        if x.shape[-len(self.normalized_shape) :] != self.normalized_shape:
            expected = ", ".join(map(str, self.normalized_shape))
            raise refusal(ValueError, f"expected (…, {expected}), the normalized_shape at the end, got a {describe(x)}")
        return x

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class LayerNorm(_RowNorm):
    """Each example with mean 0 and variance 1 over its last axes, times weight, plus bias: same shape out.

    Parameters: `weight` of ones and `bias` of zeros, of shape normalized_shape.

    Ba, Kiros and Hinton, "Layer normalization", 2016.

    Args:
        normalized_shape: the lengths of the axes to normalize over, an int for the last one alone.
        eps: added to the variance. elementwise_affine: False leaves weight and bias out, bias=False the bias alone.

    >>> import retrograd as rg
    >>> rg.nn.LayerNorm(4)(rg.zeros((2, 3, 4))).shape
    (2, 3, 4)
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: Any = DEFAULT_FLOAT,
    ):
        super().__init__(normalized_shape, eps, elementwise_affine, dtype)
        self.bias = Parameter(zeros(self.normalized_shape, dtype=dtype)) if elementwise_affine and bias else None

    def forward(self, input: Tensor) -> Tensor:
        return layer_norm(
            self._checked(input), self.weight, self.bias, normalized_shape=self.normalized_shape, eps=self.eps
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, bias={self.bias is not None}"


class RMSNorm(_RowNorm):
    """Each example divided by the root of its mean square over its last axes, times weight: same shape out.

    Parameter: `weight` of ones, of shape normalized_shape.

    Zhang and Sennrich, "Root mean square layer normalization", 2019.

    Args:
        eps: added to the mean square; None is the distance from 1 to the next number of the input's dtype.

    >>> import retrograd as rg
    >>> rg.nn.RMSNorm(2, eps=0.0)(rg.tensor([[1.0, 7.0]]))
    tensor([[0.2, 1.4]], from rms_norm)
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        dtype: Any = DEFAULT_FLOAT,
    ):
        super().__init__(normalized_shape, eps, elementwise_affine, dtype)

    def forward(self, input: Tensor) -> Tensor:
        return rms_norm(self._checked(input), self.weight, normalized_shape=self.normalized_shape, eps=self.eps)


class GroupNorm(Module):
    """Each example's channels in groups, each with mean 0 and variance 1: (N, C, …), same shape out.

    Parameters: `weight` (C,) of ones, `bias` (C,) of zeros.

    Wu and He, "Group normalization", 2018.

    >>> import retrograd as rg
    >>> rg.nn.GroupNorm(4, 16)(rg.zeros((2, 16, 8, 8))).shape
    (2, 16, 8, 8)
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
        dtype: Any = DEFAULT_FLOAT,
    ):
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"num_groups={num_groups} must divide num_channels={num_channels}")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        self.weight = Parameter(ones(num_channels, dtype=dtype)) if affine else None
        self.bias = Parameter(zeros(num_channels, dtype=dtype)) if affine and bias else None

    def forward(self, input: Tensor) -> Tensor:
        x = asarray(input) if self.weight is None else matching(input, self.weight)
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise refusal(ValueError, f"expected (N, {self.num_channels}, …), got a {describe(x)}")
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        sizes = f"{self.num_groups}, {self.num_channels}"
        return f"{sizes}, eps={self.eps}, affine={self.affine}, bias={self.bias is not None}"
