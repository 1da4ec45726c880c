"""Convolution of arrays that have the batch last: (C, H, W, N).

In this order one row of a window, for all images at once, is one piece of memory, and copying windows into columns
costs little beside multiplying them. Three maps do all the work, since the derivative of each is one of the others:

    correlate(image, weight) → out          conv2d; the gradient of conv_transpose2d
    spread(out, weight) → image             conv_transpose2d; the gradient of conv2d for its image
    weigh(image, out) → weight              the gradient of both for their weights
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .windows import Windows

# Columns are made, multiplied and forgotten in blocks: on a CPU such that they stay in the cache, on a device large
# enough to fill it.
_HOST_BLOCK = 1 << 22  # bytes
_DEVICE_BLOCK = 1 << 28


def batch_last(xp: Any, x: Any, padding: Any = ((0, 0), (0, 0))) -> Any:
    """(N, C, H, W) as (C, H, W, N) in one piece, with zeros around; no copy where it lies so already."""
    turned = x.transpose(1, 2, 3, 0)
    if padding == ((0, 0), (0, 0)):
        return xp.ascontiguousarray(turned)
    channels, height, width, images = turned.shape
    (top, bottom), (left, right) = padding
    out = xp.zeros((channels, top + height + bottom, left + width + right, images), x.dtype)
    out[:, top : top + height, left : left + width] = turned
    return out


def lying_batch_last(place: Any, batched: bool = True) -> Any:
    """A place for images (N, C, H, W) as (C, H, W, N), where its memory lies so; else None."""
    if place is None or not batched:
        return None
    turned = place.transpose(1, 2, 3, 0)
    return turned if turned.flags.c_contiguous else None


def batch_first(x: Any) -> Any:
    """(C, H, W, N) seen as (N, C, H, W)."""
    return x.transpose(3, 0, 1, 2)


def _views(xp: Any, image: Any, w: Windows) -> Any:
    """All windows of an image (C, H, W, N), as a view of its memory: (C, kh, kw, rows, columns, N)."""
    plane, row, column, one = image.strides
    return xp.lib.stride_tricks.as_strided(
        image,
        (image.shape[0], *w.kernel, *w.size, image.shape[3]),
        (plane, row * w.dilation[0], column * w.dilation[1], row * w.stride[0], column * w.stride[1], one),
    )


def _blocks(views: Any) -> Iterator[tuple[int, int, int, int]]:
    """Ranges of rows and columns whose windows fill a block: whole rows, or parts of one where it is too large."""
    channels, kh, kw, rows, columns, images = views.shape
    limit = _HOST_BLOCK if isinstance(views, np.ndarray) else _DEVICE_BLOCK
    places = max(limit // max(channels * kh * kw * images * views.dtype.itemsize, 1), 1)
    if places >= columns:
        step = places // columns
        for row in range(0, rows, step):
            yield row, min(row + step, rows), 0, columns
    else:
        for row in range(rows):
            for column in range(0, columns, places):
                yield row, row + 1, column, min(column + places, columns)


def _columns(xp: Any, image: Any, w: Windows, groups: int) -> Iterator[tuple[slice, Any]]:
    """Places of the result, and the windows there as a matrix: (groups, channels of one · kh · kw, places · N)."""
    if w.kernel == (1, 1) and w.stride == (1, 1):
        yield slice(None), _matrices(image, groups)
        return
    views = _views(xp, image, w)
    rows = math.prod(views.shape[:3])
    buffer = None
    for top, bottom, left, right in _blocks(views):
        block = views[:, :, :, top:bottom, left:right]
        if buffer is None:
            buffer = xp.empty(block.size, image.dtype)
        columns = buffer[: block.size]
        columns.reshape(block.shape)[...] = block
        places = _places(w, image.shape[3], top, bottom, left, right)
        yield places, columns.reshape(groups, rows // groups, places.stop - places.start)


def _places(w: Windows, images: int, top: int, bottom: int, left: int, right: int) -> slice:
    width = w.size[1]
    return slice((top * width + left) * images, ((bottom - 1) * width + right) * images)


def _matrices(array: Any, groups: int) -> Any:
    """One matrix per group: the first axis is split, all others are joined. For weights and for turned images."""
    return array.reshape(groups, array.shape[0] // groups, math.prod(array.shape[1:]))


def correlate(xp: Any, image: Any, weight: Any, bias: Any, w: Windows, groups: int, place: Any = None) -> Any:
    """image (C, H, W, N), padded, and weight (O, C / groups, kh, kw) → (O, rows, columns, N), in `place` if given."""
    outs, images = weight.shape[0], image.shape[3]
    matrices = _matrices(weight, groups)
    out = xp.empty((outs, *w.size, images), image.dtype) if place is None else place
    out = _matrices(out, groups)
    for places, columns in _columns(xp, image, w, groups):
        part = out[:, :, places]
        xp.matmul(matrices, columns, out=part)
        if bias is not None:
            part += bias.reshape(groups, -1, 1)
    return out.reshape(outs, *w.size, images)


def spread(xp: Any, out: Any, weight: Any, shape: tuple[int, ...], w: Windows, groups: int, place: Any = None) -> Any:
    """The transpose of `correlate` in the image: out (O, rows, columns, N) → an image of `shape`, padding included, in
    `place` if given."""
    matrices = _matrices(weight, groups).swapaxes(1, 2)
    flat = _matrices(out, groups)
    image = xp.empty(shape, out.dtype) if place is None else place
    if w.kernel == (1, 1) and w.stride == (1, 1):
        xp.matmul(matrices, flat, out=_matrices(image, groups))
        return image
    image[...] = 0
    views = _views(xp, image, w)
    buffer = None
    for top, bottom, left, right in _blocks(views):
        places = _places(w, shape[3], top, bottom, left, right)
        target = views[:, :, :, top:bottom, left:right]
        if buffer is None:
            buffer = xp.empty(target.size, out.dtype)
        columns = buffer[: target.size].reshape(groups, matrices.shape[1], places.stop - places.start)
        columns = xp.matmul(matrices, flat[:, :, places], out=columns).reshape(target.shape)
        for i in range(w.kernel[0]):
            for j in range(w.kernel[1]):
                target[:, i, j] += columns[:, i, j]
    return image


def weigh(xp: Any, image: Any, out: Any, shape: tuple[int, ...], w: Windows, groups: int) -> Any:
    """The transpose of `correlate` in the weight: image and out → a weight of `shape`."""
    flat = _matrices(out, groups)
    outs, taps = shape[0] // groups, math.prod(shape[1:])
    weight = xp.zeros((groups, outs, taps), out.dtype)
    for places, columns in _columns(xp, image, w, groups):
        _add_long_product(xp, weight, flat[:, :, places], columns)
    return weight.reshape(shape)


_UNPACKED = 1_000_000  # multiplications up to which OpenBLAS takes matrices as they lie, where it knows how


def _add_long_product(xp: Any, total: Any, a: Any, b: Any) -> None:
    """total += a · bᵀ for batches of flat matrices, (m, n) and (k, n) with n the largest by far. BLAS wants the higher
    one first; where both are low it takes longer to lay them out anew than to multiply, so it gets them in pieces that
    it takes as they are."""
    m, k, n = a.shape[1], b.shape[1], a.shape[2]
    step = max(_UNPACKED // (m * k) // 16 * 16 if m * k <= 1024 and isinstance(a, np.ndarray) else n, 1)
    for at in range(0, n, step):
        one, other = a[:, :, at : at + step], b[:, :, at : at + step]
        if m >= k:
            total += xp.matmul(one, other.swapaxes(1, 2))
        else:
            total += xp.matmul(other, one.swapaxes(1, 2)).swapaxes(1, 2)
