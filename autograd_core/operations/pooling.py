"""Pooling: each window of an image becomes one number, its largest or its mean.

Element (i, j) of all windows together is a strided view of the image. So a pool is a running maximum, or a running sum,
over as many such views as a window has elements, whatever windows overlap; and its gradient adds to the same views.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..define import fused, public
from ..half import rounded, wide, widened
from ..record import tensor_ops
from ..samples import Sample, calls, draw
from ..tensor import Tensor, TensorLike, asarray
from .windows import Windows, cropped, padded, pair, windows


def _laid(x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Windows:
    """The windows of a pool on the last two axes of x; they lie side by side unless a stride is given."""
    return windows(x.shape[-2:], kernel_size, kernel_size if stride is None else stride, padding, dilation, ceil_mode)


def _check_pool(x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> None:
    if x.ndim not in (3, 4):
        raise ValueError(f"x must have shape (N, C, H, W) or (C, H, W), got {tuple(x.shape)}")
    around = pair(padding, "padding", 0)
    w = _laid(x, kernel_size, stride, around, dilation, ceil_mode)
    half = tuple((d * (k - 1) + 1) // 2 for k, d in zip(w.kernel, w.dilation, strict=True))
    if around[0] > half[0] or around[1] > half[1]:
        raise ValueError(
            f"padding {around} must be at most half of the window, {half}: else windows could miss the image"
        )


def _widths(x: Any, w: Windows) -> tuple[tuple[int, int], ...]:
    return (*[(0, 0)] * (len(x.shape) - 2), *w.padding)


def _elements(ops: Any, x: Any, w: Windows) -> Iterator[Any]:
    """Element after element of all windows of x, which has its padding."""
    for place in w.elements():
        yield ops.getitem(x, template=(..., *place))


def _cover(w: Windows, shape: Sequence[int]) -> bool:
    """Whether windows that share no element reach every element of a padded image."""
    side_by_side = w.kernel == w.stride and w.dilation == (1, 1)
    return side_by_side and all(n * k == s for n, k, s in zip(w.size, w.kernel, shape[-2:], strict=True))


def _apart(w: Windows) -> bool:
    """Whether no two windows share an element."""
    return all(d * (k - 1) < s for k, d, s in zip(w.kernel, w.dilation, w.stride, strict=True))


# -- the largest -------------------------------------------------------------------------------------------------------


def _lowest(dtype: Any) -> Any:
    return -np.inf if dtype.kind == "f" else False if dtype.kind == "b" else int(np.iinfo(dtype).min)


def _max_pool2d_fast(ops, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, *, places=(None, None)):
    """The running maximum, and the number of the element that it came from: the last one that raised it."""
    xp = ops.xp
    w = _laid(x, kernel_size, stride, padding, dilation, ceil_mode)
    first, *rest = _elements(ops, padded(xp, x, w.padding, _lowest(x.dtype)), w)
    best, index = places
    if best is None:
        best = xp.empty_like(first)  # in the order of axes in memory that the image has
        index = xp.empty_like(best, dtype=np.uint8 if len(rest) < 256 else np.int32)
    best[...] = first
    index[...] = 0
    for number, part in enumerate(rest, start=1):
        larger = part > best
        xp.maximum(best, part, out=best)
        xp.maximum(index, xp.multiply(larger, index.dtype.type(number)), out=index)
    return best, index


def _max_pool2d_rule(ops, needs, g, x, index, kernel_size, stride, padding, dilation, ceil_mode, *, places=(None,)):
    w = _laid(x, kernel_size, stride, padding, dilation, ceil_mode)
    if index is None:
        _, index = _max_pool2d_fast(ops, x, kernel_size, stride, padding, dilation, ceil_mode)
    shape = tuple(n + sum(p) for n, p in zip(x.shape, _widths(x, w), strict=True))
    whole = ops.xp.empty_like(x, shape=shape) if places[0] is None or places[0].shape != shape else places[0]
    if not (_apart(w) and _cover(w, shape)):
        whole[...] = 0
    if tuple(s // g.dtype.itemsize for s in g.strides) != tuple(s // index.dtype.itemsize for s in index.strides):
        g, given = ops.xp.empty_like(index, dtype=g.dtype), g  # two orders at once are slower than a copy
        g[...] = given
    for number, place in enumerate(w.elements()):
        target = whole[(..., *place)]
        if _apart(w):
            ops.xp.multiply(g, index == number, out=target)
        else:
            target += g * (index == number)
    return [whole if whole is places[0] else cropped(whole, w.padding)]


@fused(
    derivative=_max_pool2d_rule,
    fast=_max_pool2d_fast,
    residuals=("index",),
    check=lambda backend, x, **options: _check_pool(x, **options),
    method=False,
    numpy=(),
    samples=calls(
        lambda rng: Sample((_distinct(rng, (2, 2, 4, 5)),), {"kernel_size": 2}),
        lambda rng: Sample((_distinct(rng, (1, 5, 4)),), {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 1)}),
        lambda rng: Sample(
            (_distinct(rng, (1, 1, 5, 5)),), {"kernel_size": 2, "dilation": 2, "ceil_mode": True, "stride": 2}
        ),
        lambda rng: Sample((_distinct(rng, (1, 3, 3)),), {"kernel_size": 1}),
        lambda rng: Sample((_distinct(rng, (0, 2, 3, 3)),), {"kernel_size": 2}),
    ),
)
def max_pool2d(ops, x, /, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """The largest element of every window. Of equal ones the first, row by row, gets the gradient, as in PyTorch.

    Args:
        x: images (N, C, H, W), or one image (C, H, W); padding counts as -∞.
        kernel_size, padding, dilation: an int, or a pair for rows and columns.
        stride: likewise; None puts windows side by side.
        ceil_mode: let a last window reach over the edge, if it begins inside.

    Returns:
        (N, C, rows, columns), without N where x has none.

    Raises:
        ValueError: a window larger than the padded image, padding of more than half a window, a wrong number of axes.

    >>> import retrograd as rg
    >>> rg.max_pool2d(rg.arange(8.0).reshape(1, 2, 4), kernel_size=2)
    tensor([[[5., 7.]]])
    """
    w = _laid(x, kernel_size, stride, padding, dilation, ceil_mode)
    x = ops.pad_constant(x, pad_width=_widths(x, w), value=_lowest(x.dtype))
    best, *rest = _elements(ops, x, w)
    for part in rest:
        best = ops.where(ops.logical_or(ops.greater(part, best), ops.isnan(part)), part, best)
    return best


def _distinct(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers no two of which are near each other: the maximum has kinks where two are equal."""
    return rng.permutation(np.prod(shape, dtype=int)).reshape(shape) * 0.1 + draw(rng, shape, 0.0, 0.05)


# -- the mean ----------------------------------------------------------------------------------------------------------


def _avg_windows(x: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool) -> Windows:
    return _laid(x, kernel_size, stride, padding, 1, ceil_mode)


def _total(ops: Any, x: Any, w: Windows) -> Any:
    total, *rest = _elements(ops, ops.pad_constant(x, pad_width=_widths(x, w)), w)
    for part in rest:
        total = ops.add(total, part)
    return total


def _divisor(ops: Any, x: Any, w: Windows, padding: Any, count_include_pad: bool, divisor_override: int | None) -> Any:
    """What a window's sum is divided by: a number, or an array (rows, columns) where windows at the edge have less."""
    around = tuple((p, p) for p in pair(padding, "padding", 0))
    counted = around if count_include_pad else ((0, 0), (0, 0))
    if divisor_override is not None:
        return float(divisor_override)
    if counted == w.padding:
        return float(w.kernel[0] * w.kernel[1])
    ones = ops.add(ops.zeros(tuple(x.shape[-2:]), like=x), 1.0)
    ones = ops.pad_constant(ones, pad_width=counted, value=1)
    rest = tuple((b - p, a - q) for (b, a), (p, q) in zip(w.padding, counted, strict=True))
    return _total(ops, ones, w._replace(padding=rest))


def _avg_pool2d_fast(
    ops, x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    w = _avg_windows(x, kernel_size, stride, padding, ceil_mode)
    single = wide(x)
    first, *rest = _elements(ops, padded(ops.xp, single, w.padding), w)
    total = first / 1
    for part in rest:
        total += part
    total /= _divisor(ops, single, w, padding, count_include_pad, divisor_override)
    return total.astype(x.dtype, copy=False)


def _avg_pool2d_rule(ops, needs, g, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override):
    w = _avg_windows(x, kernel_size, stride, padding, ceil_mode)
    g = g / _divisor(ops, x, w, padding, count_include_pad, divisor_override)
    whole = ops.xp.zeros_like(x, shape=tuple(n + sum(p) for n, p in zip(x.shape, _widths(x, w), strict=True)))
    for place in w.elements():
        whole[(..., *place)] += g
    return [cropped(whole, w.padding)]


def _check_avg(backend: Any, x: Any, divisor_override: Any, count_include_pad: Any, **options: Any) -> None:
    _check_pool(x, dilation=1, **options)
    if divisor_override == 0:
        raise ValueError("divisor_override must not be 0")


@fused(
    derivative=_avg_pool2d_rule,
    fast=_avg_pool2d_fast,
    floating=True,
    check=_check_avg,
    method=False,
    numpy=(),
    samples=calls(
        lambda rng: Sample((draw(rng, (2, 2, 4, 5)),), {"kernel_size": 2}),
        lambda rng: Sample((draw(rng, (1, 5, 4)),), {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 1)}),
        lambda rng: Sample(
            (draw(rng, (1, 1, 5, 4)),), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}
        ),
        lambda rng: Sample(
            (draw(rng, (1, 4, 4)),), {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}
        ),
        lambda rng: Sample((draw(rng, (1, 3, 3)),), {"kernel_size": 2, "divisor_override": 3}),
        lambda rng: Sample((draw(rng, (0, 2, 3, 3)),), {"kernel_size": 2}),
    ),
)
def avg_pool2d(
    ops, x, /, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """The mean of every window.

    Args:
        x: images (N, C, H, W), or one image (C, H, W).
        kernel_size, padding: an int, or a pair for rows and columns.
        stride: likewise; None puts windows side by side.
        ceil_mode: let a last window reach over the edge, if it begins inside; it counts what lies inside.
        count_include_pad: whether zeros of the padding count in a mean.
        divisor_override: divide the sums by this number instead.

    Returns:
        (N, C, rows, columns), without N where x has none.

    Raises:
        ValueError: as for `max_pool2d`.

    >>> import retrograd as rg
    >>> rg.avg_pool2d(rg.arange(8.0).reshape(1, 2, 4), kernel_size=2)
    tensor([[[2.5, 4.5]]])
    """
    w = _avg_windows(x, kernel_size, stride, padding, ceil_mode)
    (single,) = widened(ops, x)
    mean = ops.divide(_total(ops, single, w), _divisor(ops, single, w, padding, count_include_pad, divisor_override))
    return rounded(ops, mean, x)


@public
def adaptive_avg_pool2d(x: TensorLike, output_size: int | Sequence[int | None] | None) -> Tensor:
    """Means over as many windows as are asked for: row r of the result is the mean of rows ⌊r·H/n⌋ to ⌈(r+1)·H/n⌉.

    Args:
        x: images (N, C, H, W), or one image (C, H, W).
        output_size: an int, or a pair for rows and columns; None keeps the image's. 1 is the mean of the image.

    Raises:
        ValueError: a wrong number of axes, or an output size that is not positive.

    >>> import retrograd as rg
    >>> rg.adaptive_avg_pool2d(rg.arange(6.0).reshape(1, 2, 3), (1, 2))
    tensor([[[2., 3.]]])
    """
    x = x if isinstance(x, Tensor) else asarray(x)
    if x.ndim not in (3, 4):
        raise ValueError(f"adaptive_avg_pool2d: x must have shape (N, C, H, W) or (C, H, W), got {x.shape}")
    asked = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    image = x.shape[-2:]
    size = pair(tuple(n if a is None else a for a, n in zip(asked, image, strict=True)), "output_size", 1)
    if size == (1, 1):
        return tensor_ops.mean(x, axis=(-2, -1), keepdims=True)
    if image[0] % size[0] == image[1] % size[1] == 0:
        return tensor_ops.avg_pool2d(x, kernel_size=(image[0] // size[0], image[1] // size[1]))
    rows, columns = (_shares(x, n, m) for n, m in zip(image, size, strict=True))
    return tensor_ops.matmul(tensor_ops.matmul(rows, x), tensor_ops.transpose(columns))


def _shares(x: Any, n: int, m: int) -> Any:
    """The matrix (m, n) that takes the means over m windows of n elements."""
    at = np.arange(m)[:, None]
    first, last = at * n // m, -((at + 1) * n // -m)
    inside = (np.arange(n) >= first) & (np.arange(n) < last)
    return Tensor(x.backend.asarray((inside / (last - first)).astype(x.dtype if x.dtype.kind == "f" else np.float32)))
