"""Pooling layers: one number for every window of an image, so that what follows sees more of it in fewer numbers."""

from __future__ import annotations

from collections.abc import Sequence

from ..autograd_core.tensor import Tensor
from . import functional as F
from .module import Module

Size = int | Sequence[int]


class MaxPool2d(Module):
    """The largest element of every window: (N, C, H, W) → (N, C, rows, columns); N may be left out.

    Args:
        kernel_size, stride, padding, dilation: an int, or one for rows and one for columns; without a stride windows
            lie side by side. Padding counts as -∞.
        ceil_mode: let a last window reach over the edge.

    >>> import retrograd as rg
    >>> rg.nn.MaxPool2d(2)(rg.zeros((64, 32, 26, 26))).shape
    (64, 32, 13, 13)
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ):
        super().__init__()
        if return_indices:
            raise NotImplementedError("MaxPool2d gives the values alone; return_indices=True is not there")
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        return F.max_pool2d(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"ceil_mode={self.ceil_mode}"
        )


class AvgPool2d(Module):
    """The mean of every window: (N, C, H, W) → (N, C, rows, columns); N may be left out.

    Args:
        kernel_size, stride, padding: an int, or one for rows and one for columns.
        ceil_mode: let a last window reach over the edge. count_include_pad: whether zeros of the padding count.
        divisor_override: divide the sums by this number instead.

    >>> import retrograd as rg
    >>> rg.nn.AvgPool2d(2)(rg.ones((1, 1, 4, 4))).shape
    (1, 1, 2, 2)
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(Module):
    """Means of windows that are laid so that `output_size` (rows, columns) come out, whatever the image's size.

    >>> import retrograd as rg
    >>> rg.nn.AdaptiveAvgPool2d(1)(rg.zeros((8, 64, 7, 5))).shape
    (8, 64, 1, 1)
    """

    def __init__(self, output_size: int | Sequence[int | None]):
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"
