"""Convolution: the same small linear map applied at every place of an image.

What it is, `conv2d` says below in four operations: unfold, one matrix product, fold the result into an image, add the
bias. How it is made fast stands in `batch_last.py`. The result is handed out as a view with the axes (N, C, H, W) on
memory in the order (C, H, W, N): so the next convolution finds its input turned already, and what lies between
(activations, pooling) keeps the order, as NumPy does.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..define import fused, public
from ..half import rounded, wide, widened
from ..record import tensor_ops
from ..samples import Sample, calls, draw
from ..tensor import Tensor, TensorLike
from .batch_last import batch_first, batch_last, correlate, lying_batch_last, spread, weigh
from .windows import Pair, Windows, cropped, pair, windows

# -- shapes ------------------------------------------------------------------------------------------------------------


def _batched(x: Any) -> Any:
    return x if x.ndim == 4 else x[None]


def _like(x: Any, out: Any) -> Any:
    """A batched result with the dtype of the input x, and without a batch where x has none."""
    return (out if x.ndim == 4 else out[0]).astype(x.dtype, copy=False)


def _check_common(x: Any, weight: Any, bias: Any, channels: int, outs: int, groups: Any, layout: str) -> None:
    if x.ndim not in (3, 4):
        raise ValueError(f"x must have shape (N, C, H, W) or (C, H, W), got {tuple(x.shape)}")
    if not isinstance(groups, int) or groups < 1:
        raise ValueError(f"groups must be a positive int, got {groups!r}")
    if x.shape[-3] != channels:
        raise ValueError(
            f"x has {x.shape[-3]} channels, and weight {layout} of {tuple(weight.shape)} with groups={groups} expects "
            f"{channels}"
        )
    if channels % groups or outs % groups:
        raise ValueError(f"groups={groups} must divide the {channels} channels of x and the {outs} of the result")
    if bias is not None and tuple(bias.shape) != (outs,):
        raise ValueError(
            f"bias must have shape ({outs},), one number per channel of the result; got {tuple(bias.shape)}"
        )


def _check_conv2d(
    backend: Any, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any
) -> None:
    layout = "(out, in / groups, kh, kw)"
    if weight.ndim != 4:
        raise ValueError(f"weight must have shape {layout}, got {tuple(weight.shape)}")
    channels = weight.shape[1] * (groups if isinstance(groups, int) else 1)
    _check_common(x, weight, bias, channels, weight.shape[0], groups, layout)
    windows(x.shape[-2:], weight.shape[2:], stride, padding, dilation)


# -- conv2d ------------------------------------------------------------------------------------------------------------


def _conv2d_fast(ops, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, places=(None,)):
    w = windows(x.shape[-2:], weight.shape[2:], stride, padding, dilation)
    image = batch_last(ops.xp, _batched(wide(x)), w.padding)
    place = lying_batch_last(places[0], x.ndim == 4 and image.dtype == x.dtype)
    out = correlate(ops.xp, image, wide(weight), wide(bias), w, groups, place)
    return _like(x, batch_first(out)) if place is None else places[0]


def _conv2d_rule(ops, needs, g, x, weight, stride, padding, dilation, groups, *, places=(None, None, None)):
    w = windows(x.shape[-2:], weight.shape[2:], stride, padding, dilation)
    out = batch_last(ops.xp, _batched(wide(g)))
    gx = gw = gb = None
    if needs[0]:
        rows, columns = (n + sum(p) for n, p in zip(x.shape[-2:], w.padding, strict=True))
        shape = (x.shape[-3], rows, columns, out.shape[3])
        place = lying_batch_last(places[0], shape[1:3] == x.shape[-2:] and x.ndim == 4 and out.dtype == x.dtype)
        image = spread(ops.xp, out, wide(weight), shape, w, groups, place)
        gx = _like(x, cropped(batch_first(image), w.padding)) if place is None else places[0]
    if needs[1]:
        image = batch_last(ops.xp, _batched(wide(x)), w.padding)
        gw = weigh(ops.xp, image, out, weight.shape, w, groups).astype(weight.dtype, copy=False)
    if needs[2]:  # a product, not a sum: the BLAS goes through memory with all cores
        rows = out.reshape(out.shape[0], -1)
        gb = ops.xp.matmul(rows, ops.xp.ones(rows.shape[1], rows.dtype))
    return gx, gw, gb


_conv2d_samples = calls(
    lambda rng: Sample((draw(rng, (2, 2, 4, 3)), draw(rng, (3, 2, 2, 2)), draw(rng, (3,)))),
    lambda rng: Sample(
        (draw(rng, (1, 2, 5, 4)), draw(rng, (4, 1, 3, 2)), draw(rng, (4,))),
        {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2},
    ),
    lambda rng: Sample((draw(rng, (2, 3, 4)), draw(rng, (2, 2, 2, 3))), {"padding": "same"}),
    lambda rng: Sample((draw(rng, (2, 3, 2, 2)), draw(rng, (2, 3, 1, 1)), draw(rng, (2,)))),
    lambda rng: Sample((draw(rng, (0, 2, 3, 3)), draw(rng, (2, 2, 2, 2)), draw(rng, (2,)))),
)


@fused(
    derivative=_conv2d_rule,
    fast=_conv2d_fast,
    floating=True,
    check=_check_conv2d,
    method=False,
    numpy=(),
    samples=_conv2d_samples,
)
def conv2d(ops, x, weight, bias=None, /, stride=1, padding=0, dilation=1, groups=1):
    """Two-dimensional convolution (without flipping the kernel, as all frameworks do).

        out[n, o, r, s] = bias[o] + Σ_c,i,j weight[o, c, i, j] · x[n, c, r·stride + i·dilation, s·stride + j·dilation]

    Args:
        x: images (N, C, H, W), or one image (C, H, W).
        weight: (out, C / groups, kh, kw).
        bias: (out,), or None.
        stride, dilation: an int, or a pair for rows and columns.
        padding: zeros around the image: an int, a pair, "valid" (none) or "same" (as many places as the image has).
        groups: channels are split into so many groups that do not see each other.

    Returns:
        (N, out, rows, columns), without N where x has none. float16 is computed in float32.

    Raises:
        ValueError: shapes that do not fit; the message says which.

    >>> import retrograd as rg
    >>> image, kernel = rg.arange(9.0).reshape(1, 1, 3, 3), rg.ones((1, 1, 2, 2))
    >>> rg.conv2d(image, kernel)
    tensor([[[[ 8., 12.],
              [20., 24.]]]])
    """
    if x.dtype == np.float16:
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return rounded(ops, ops.conv2d(*widened(ops, x, weight, bias), **options), x)
    w = windows(x.shape[-2:], weight.shape[2:], stride, padding, dilation)
    lead, (outs, *rest) = x.shape[:-3], weight.shape
    x = ops.pad_constant(x, pad_width=(*[(0, 0)] * (len(x.shape) - 2), *w.padding))
    columns = ops.unfold(x, kernel_size=w.kernel, dilation=w.dilation, stride=w.stride)
    taps = rest[0] * rest[1] * rest[2]
    columns = ops.reshape(columns, shape=(*lead, groups, taps, w.size[0] * w.size[1]))
    out = ops.matmul(ops.reshape(weight, shape=(groups, outs // groups, taps)), columns)
    out = ops.reshape(out, shape=(*lead, outs, *w.size))
    return out if bias is None else ops.add(out, ops.reshape(bias, shape=(outs, 1, 1)))


# -- its transpose -----------------------------------------------------------------------------------------------------


def _target(x: Any, weight: Any, stride: Any, padding: Any, output_padding: Any, dilation: Any) -> tuple[Pair, Windows]:
    """The size of the result, and the windows on it: there is one for each place of x."""
    kernel, size = tuple(weight.shape[2:]), tuple(x.shape[-2:])
    stride, dilation = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
    padding, extra = pair(padding, "padding", 0), pair(output_padding, "output_padding", 0)
    image = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, k, s, p, e, d in zip(size, kernel, stride, padding, extra, dilation, strict=True)
    )
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ValueError(f"output_padding {extra} must be smaller than stride {stride} or dilation {dilation}")
    if min(image) < 1:
        raise ValueError(f"padding {padding} leaves nothing of the result, whose size would be {image}")
    around = tuple((p, p) for p in padding)
    return image, Windows(kernel, stride, dilation, around, size)  # type: ignore[arg-type, return-value]


def _check_conv_transpose2d(
    backend: Any,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: Any,
    dilation: Any,
) -> None:
    layout = "(in, out / groups, kh, kw)"
    if weight.ndim != 4:
        raise ValueError(f"weight must have shape {layout}, got {tuple(weight.shape)}")
    outs = weight.shape[1] * (groups if isinstance(groups, int) else 1)
    _check_common(x, weight, bias, weight.shape[0], outs, groups, layout)
    _target(x, weight, stride, padding, output_padding, dilation)


def _conv_transpose2d_fast(ops, x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    (height, width), w = _target(x, weight, stride, padding, output_padding, dilation)
    turned = batch_last(ops.xp, _batched(wide(x)))
    shape = (weight.shape[1] * groups, height + 2 * w.padding[0][0], width + 2 * w.padding[1][0], turned.shape[3])
    out = cropped(batch_first(spread(ops.xp, turned, wide(weight), shape, w, groups)), w.padding)
    if bias is not None:
        out += bias.reshape(-1, 1, 1)
    return _like(x, out)


def _conv_transpose2d_rule(ops, needs, g, x, weight, stride, padding, output_padding, groups, dilation):
    _, w = _target(x, weight, stride, padding, output_padding, dilation)
    image = batch_last(ops.xp, _batched(wide(g)), w.padding)
    gx = gw = gb = None
    if needs[0]:
        gx = _like(x, batch_first(correlate(ops.xp, image, wide(weight), None, w, groups)))
    if needs[1]:
        turned = batch_last(ops.xp, _batched(wide(x)))
        gw = weigh(ops.xp, image, turned, weight.shape, w, groups).astype(weight.dtype, copy=False)
    if needs[2]:
        gb = ops.xp.sum(_batched(wide(g)), axis=(0, 2, 3))
    return gx, gw, gb


@fused(
    derivative=_conv_transpose2d_rule,
    fast=_conv_transpose2d_fast,
    floating=True,
    check=_check_conv_transpose2d,
    method=False,
    numpy=(),
    samples=calls(
        lambda rng: Sample((draw(rng, (2, 2, 2, 3)), draw(rng, (2, 3, 2, 2)), draw(rng, (3,)))),
        lambda rng: Sample(
            (draw(rng, (1, 4, 3, 2)), draw(rng, (4, 1, 3, 2)), draw(rng, (2,))),
            {"stride": (2, 1), "padding": (1, 0), "output_padding": (1, 1), "dilation": (1, 2), "groups": 2},
        ),
        lambda rng: Sample((draw(rng, (2, 2, 2)), draw(rng, (2, 1, 2, 2))), {"stride": 3}),
        lambda rng: Sample((draw(rng, (2, 3, 2, 2)), draw(rng, (3, 2, 1, 1)))),
    ),
)
def conv_transpose2d(ops, x, weight, bias=None, /, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """The transpose of `conv2d` as a linear map: each place of x adds its multiple of the kernel to the result.

    With the same weight and options it turns the shape that `conv2d` gives back into the one that `conv2d` took.

    Args:
        x: (N, in, H, W), or (in, H, W).
        weight: (in, out / groups, kh, kw).
        bias: (out,), or None.
        stride: distance of the kernels' places in the result, an int or a pair.
        padding: rows and columns that are cut off all around the result.
        output_padding: rows and columns added at its end: with a stride several sizes are possible.
        groups, dilation: as in `conv2d`.

    Returns:
        (N, out, (H - 1)·stride - 2·padding + dilation·(kh - 1) + output_padding + 1, …).

    Raises:
        ValueError: shapes that do not fit; the message says which.

    >>> import retrograd as rg
    >>> rg.conv_transpose2d(rg.tensor([[[1.0, 2.0]]]), rg.ones((1, 1, 1, 2)), stride=2)
    tensor([[[1., 1., 2., 2.]]])
    """
    if x.dtype == np.float16:
        options = {"stride": stride, "padding": padding, "output_padding": output_padding}
        options |= {"groups": groups, "dilation": dilation}
        return rounded(ops, ops.conv_transpose2d(*widened(ops, x, weight, bias), **options), x)
    (height, width), w = _target(x, weight, stride, padding, output_padding, dilation)
    lead, (ins, *rest), taps = x.shape[:-3], weight.shape, math.prod(weight.shape[1:])
    places = w.size[0] * w.size[1]
    matrices = ops.transpose(ops.reshape(weight, shape=(groups, ins // groups, taps)), axes=(0, 2, 1))
    columns = ops.matmul(matrices, ops.reshape(x, shape=(*lead, groups, ins // groups, places)))
    columns = ops.reshape(columns, shape=(*lead, groups * taps, places))
    reached = tuple(
        (n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(w.size, w.stride, w.dilation, w.kernel, strict=True)
    )
    out = ops.fold(columns, output_size=reached, kernel_size=w.kernel, dilation=w.dilation, stride=w.stride)
    (top, _), (left, _) = w.padding
    missing = (max(top + height - reached[0], 0), max(left + width - reached[1], 0))
    out = ops.pad_constant(out, pad_width=(*[(0, 0)] * (len(lead) + 1), (0, missing[0]), (0, missing[1])))
    out = ops.getitem(out, template=(..., slice(top, top + height), slice(left, left + width)))
    return out if bias is None else ops.add(out, ops.reshape(bias, shape=(rest[0] * groups, 1, 1)))


# -- one dimension -----------------------------------------------------------------------------------------------------


@public
def conv1d(
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None = None,
    stride: int = 1,
    padding: int | str = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """One-dimensional convolution: `conv2d` on images of one row.

    Args:
        x: sequences (N, C, L), or one sequence (C, L).
        weight: (out, C / groups, k).
        bias: (out,), or None.
        stride, dilation, groups: positive ints.
        padding: zeros at both ends, an int, or "valid" or "same".

    Returns:
        (N, out, places), without N where x has none.

    Raises:
        ValueError: shapes that do not fit; the message says which.

    >>> import retrograd as rg
    >>> rg.conv1d(rg.tensor([[1.0, 2.0, 4.0]]), rg.tensor([[[-1.0, 1.0]]]))
    tensor([[1., 2.]])
    """
    if np.ndim(weight) != 3 or np.ndim(x) not in (2, 3):
        raise ValueError(
            f"conv1d: x must have shape (N, C, L) or (C, L) and weight (out, C / groups, k), got {np.shape(x)} and "
            f"{np.shape(weight)}"
        )
    around = padding if isinstance(padding, str) else (0, pair(padding, "padding", 0)[1])
    strides, gaps = (1, pair(stride, "stride", 1)[1]), (1, pair(dilation, "dilation", 1)[1])
    rows, kernel = tensor_ops.expand_dims(x, axis=-2), tensor_ops.expand_dims(weight, axis=-2)
    out = tensor_ops.conv2d(rows, kernel, bias, stride=strides, padding=around, dilation=gaps, groups=groups)
    return tensor_ops.squeeze(out, axis=-2)
