"""Convolution layers: one small set of weights, looked with at every place of an image or a sequence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..autograd_core.errors import one_frame
from ..autograd_core.operations.creation import zeros
from ..autograd_core.promotion import DEFAULT_FLOAT
from ..autograd_core.tensor import Tensor
from . import functional as F
from . import init
from .checks import matching, wrong_channels
from .module import Module
from .parameter import Parameter

Size = int | Sequence[int]
_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Convolution(Module):
    """What the layers share; `_spatial` is the number of axes that the kernel moves along."""

    _spatial = 2

    @one_frame
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        dtype: Any = DEFAULT_FLOAT,
    ):
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}")
        if padding_mode not in _PADDING_MODES:
            raise ValueError(f"padding_mode must be one of {', '.join(_PADDING_MODES)}, got {padding_mode!r}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = self._sizes("kernel_size", kernel_size, 1)
        self.stride = self._sizes("stride", stride, 1)
        self.padding = padding if isinstance(padding, str) else self._sizes("padding", padding, 0)
        self.dilation = self._sizes("dilation", dilation, 1)
        if self.padding not in ("valid", "same") and isinstance(self.padding, str):
            raise ValueError(f"padding must be a number, 'valid' or 'same', got {padding!r}")
        if self.padding == "same" and max(self.stride) > 1:
            raise ValueError(f"padding='same' needs stride=1, got stride={stride!r}")
        self.groups = groups
        self.padding_mode = padding_mode
        self.weight = Parameter(zeros(self._weight_shape(), dtype=dtype))
        self.bias = Parameter(zeros(out_channels, dtype=dtype)) if bias else None
        self.reset_parameters()

    def _weight_shape(self) -> tuple[int, ...]:
        return self.out_channels, self.in_channels // self.groups, *self.kernel_size

    def _sizes(self, name: str, value: Size, least: int) -> tuple[int, ...]:
        sizes = (value,) * self._spatial if isinstance(value, int) else tuple(value)
        if len(sizes) != self._spatial or not all(isinstance(n, int) and n >= least for n in sizes):
            raise ValueError(
                f"{name} must be an integer of at least {least}, or {self._spatial} of them; got {value!r}"
            )
        return sizes

    def reset_parameters(self) -> None:
        """Draw new weights."""
        fan_in, _ = init.fans(self.weight)
        if fan_in:
            bound = 1 / math.sqrt(fan_in)
            init.uniform_(self.weight, -bound, bound)
            if self.bias is not None:
                init.uniform_(self.bias, -bound, bound)

    def _checked(self, input: Any) -> Tensor:
        x = matching(input, self.weight)
        if x.ndim not in (self._spatial + 1, self._spatial + 2) or x.shape[-self._spatial - 1] != self.in_channels:
            raise wrong_channels(x, self.in_channels, "in_channels", self._spatial)
        return x

    def _padded(self, x: Tensor) -> tuple[Tensor, Any]:
        """The input and the zeros that are left for the convolution to put around it."""
        if self.padding_mode == "zeros":
            return x, self.padding
        if self.padding == "valid":
            return x, 0
        around = []
        for axis in reversed(range(self._spatial)):
            if self.padding == "same":
                total = self.dilation[axis] * (self.kernel_size[axis] - 1)
                around += [total // 2, total - total // 2]
            else:
                around += [self.padding[axis]] * 2
        return F.pad(x, around, self.padding_mode), 0

    def extra_repr(self) -> str:
        plain = (0,) * self._spatial, (1,) * self._spatial
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        if self.padding != plain[0]:
            parts.append(f"padding={self.padding}")
        if self.dilation != plain[1]:
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


class Conv2d(_Convolution):
    """Two-dimensional convolution: (N, in_channels, H, W) → (N, out_channels, rows, columns); N may be left out.

    Parameters: `weight` (out_channels, in_channels / groups, kh, kw), `bias` (out_channels,), both uniform in
    ±1/√(inputs of one output). `rg.conv2d` has the formula.

    Args:
        kernel_size, stride, dilation: an int, or one for rows and one for columns.
        padding: what is put around the image: an int, two, "valid" (nothing) or "same" (the image keeps its size).
        groups: channels are split into so many groups that do not see each other. bias: False leaves it out.
        padding_mode: "zeros", or where the values come from: "reflect", "replicate", "circular".
        dtype: of the parameters, and so of the input.
    Raises:
        ValueError: an input of other axes or channels. TypeError: an input of another dtype than the weight.

    >>> import retrograd as rg
    >>> layer = rg.nn.Conv2d(1, 32, 3)
    >>> layer(rg.zeros((64, 1, 28, 28))).shape
    (64, 32, 26, 26)
    >>> layer(rg.zeros((64, 28, 28)))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: Conv2d: expected (N, 1, H, W) or (1, H, W) with in_channels=1, got ...(64, 28, 28)...
    """

    def forward(self, input: Tensor) -> Tensor:
        x, padding = self._padded(self._checked(input))
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv1d(_Convolution):
    """One-dimensional convolution: (N, in_channels, L) → (N, out_channels, places); N may be left out.

    Parameters and arguments are those of Conv2d with one number instead of two.

    >>> import retrograd as rg
    >>> rg.nn.Conv1d(16, 8, 3, padding=1)(rg.zeros((4, 16, 50))).shape
    (4, 8, 50)
    """

    _spatial = 1

    def forward(self, input: Tensor) -> Tensor:
        x, padding = self._padded(self._checked(input))
        around = padding if isinstance(padding, str | int) else padding[0]
        return F.conv1d(x, self.weight, self.bias, self.stride[0], around, self.dilation[0], self.groups)
