"""Windows that slide over an image: where they lie, and the two linear maps between an image and its windows.

`unfold` writes every window into a column, `fold` adds columns back to where they came from. Each is the other's
transpose, and so each is the other's derivative. Convolution is `unfold` and a matrix product.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

from ..define import record
from ..samples import Sample, calls, draw

Pair = tuple[int, int]


class Windows(NamedTuple):
    """How windows lie on an image; every field has one entry for the rows and one for the columns.

    `padding` holds (before, after), `size` counts the windows.
    """

    kernel: Pair
    stride: Pair
    dilation: Pair
    padding: tuple[Pair, Pair]
    size: Pair

    def slices(self, i: int, j: int) -> tuple[slice, slice]:
        """The places of element (i, j) of all windows, in rows and columns of the padded image."""
        rows, columns = (
            slice(at * d, at * d + (n - 1) * s + 1, s)
            for at, d, n, s in zip((i, j), self.dilation, self.size, self.stride, strict=True)
        )
        return rows, columns

    def elements(self) -> list[tuple[slice, slice]]:
        """`slices` of every element of a window, row by row."""
        return [self.slices(i, j) for i in range(self.kernel[0]) for j in range(self.kernel[1])]


def pair(value: Any, name: str, least: int) -> Pair:
    """An int, or a pair of ints, as a pair; an error below `least`."""
    given = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    try:
        numbers = tuple(operator.index(v) for v in given)
    except TypeError:
        numbers = ()
    if len(numbers) != 2 or min(numbers) < least:
        raise ValueError(f"{name} must be an int or a pair of ints, at least {least}; got {value!r}")
    return numbers


def windows(
    image: Pair, kernel: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Windows:
    """The windows of `kernel` on an image of `image` rows and columns that lie wholly inside it or its padding.

    `padding` is an int or a pair, "valid" (none), or "same" (as many windows as places, with stride 1). With
    `ceil_mode` a last window may reach beyond, if it begins inside; the padding at the end is longer then.
    """
    kernel, stride, dilation = pair(kernel, "kernel_size", 1), pair(stride, "stride", 1), pair(dilation, "dilation", 1)
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    around, size = [], []
    for n, r, s, (before, after) in zip(image, reach, stride, _around(padding, reach, stride), strict=True):
        room = n + before + after - r
        count = room // s + 1
        if ceil_mode and room % s and count * s < n + before:
            count += 1
        around.append((before, max(after, (count - 1) * s + r - n - before)))
        size.append(count)
    if min(size) < 1:
        whole = " × ".join(str(n + sum(p)) for n, p in zip(image, _around(padding, reach, stride), strict=True))
        raise ValueError(
            f"the window of {reach[0]} × {reach[1]} (kernel {kernel}, dilation {dilation}) is larger than the image of "
            f"{whole} (padding included)"
        )
    return Windows(kernel, stride, dilation, tuple(around), tuple(size))


def _around(padding: Any, reach: tuple[int, ...], stride: Pair) -> tuple[Pair, Pair]:
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        if stride != (1, 1):
            raise ValueError(f"padding='same' needs stride=1, got stride={stride}")
        rows, columns = (((r - 1) // 2, r // 2) for r in reach)
        return rows, columns
    if isinstance(padding, str):
        raise ValueError(f"padding must be an int, a pair of ints, 'same' or 'valid', got {padding!r}")
    rows, columns = pair(padding, "padding", 0)
    return (rows, rows), (columns, columns)


def padded(xp: Any, x: Any, padding: tuple[Pair, Pair], value: float = 0) -> Any:
    """x with `value` around its last two axes; its axes stay in the order in which they lie in memory."""
    (top, bottom), (left, right) = padding
    if padding == ((0, 0), (0, 0)):
        return x
    rows, columns = x.shape[-2:]
    out = xp.full_like(x, value, shape=(*x.shape[:-2], top + rows + bottom, left + columns + right))
    out[..., top : top + rows, left : left + columns] = x
    return out


def cropped(x: Any, padding: tuple[Pair, Pair]) -> Any:
    """The opposite of `padded`, a view."""
    (top, bottom), (left, right) = padding
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def _check_unfold(backend: Any, x: Any, kernel_size: Any, **options: Any) -> None:
    if x.ndim not in (3, 4):
        raise ValueError(f"x must have shape (N, C, H, W) or (C, H, W), got {tuple(x.shape)}")
    windows(x.shape[-2:], kernel_size, **options)


def _check_fold(backend: Any, x: Any, output_size: Any, kernel_size: Any, **options: Any) -> None:
    w = windows(pair(output_size, "output_size", 1), kernel_size, **options)
    (kh, kw), (rows, columns) = w.kernel, w.size
    if x.ndim not in (2, 3) or x.shape[-2] % (kh * kw) or x.shape[-1] != rows * columns:
        raise ValueError(
            f"x must have shape (N, C·{kh}·{kw}, {rows}·{columns}), or that without N; got {tuple(x.shape)}"
        )


def _fold_rule(ops, g, kernel_size, dilation, padding, stride):
    return ops.unfold(g, kernel_size=kernel_size, dilation=dilation, padding=padding, stride=stride)


@record(
    "movement",
    derivatives=dict(x=_fold_rule),
    check=_check_fold,
    method=False,
    numpy=(),
    samples=calls(
        lambda rng: Sample((draw(rng, (2, 8, 6)),), {"output_size": (3, 4), "kernel_size": 2}),
        lambda rng: Sample(
            (draw(rng, (6, 6)),), {"output_size": 4, "kernel_size": (2, 3), "padding": (1, 0), "stride": (2, 1)}
        ),
    ),
)
def fold(xp, x, /, output_size, kernel_size, dilation=1, padding=0, stride=1):
    """Columns (N, C·kh·kw, L) added up to images (N, C, *output_size): where windows overlap, they add.

    The transpose of `unfold`, with PyTorch's arguments; N may be missing. Also called col2im.

    >>> import retrograd as rg
    >>> rg.fold(rg.ones((4, 4)), output_size=3, kernel_size=2)
    tensor([[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]])
    """
    w = windows(pair(output_size, "output_size", 1), kernel_size, stride, padding, dilation)
    lead, (kh, kw) = x.shape[:-2], w.kernel
    parts = x.reshape(*lead, x.shape[-2] // (kh * kw), kh * kw, *w.size)
    rows, columns = (n + sum(p) for n, p in zip(pair(output_size, "output_size", 1), w.padding, strict=True))
    out = xp.zeros((*lead, parts.shape[-4], rows, columns), x.dtype)
    for k, place in enumerate(w.elements()):
        out[(..., *place)] += parts[..., k, :, :]
    return cropped(out, w.padding)


def _unfold_rule(ops, g, x_shape, kernel_size, dilation, padding, stride):
    return ops.fold(
        g, output_size=x_shape[-2:], kernel_size=kernel_size, dilation=dilation, padding=padding, stride=stride
    )


@record(
    "movement",
    derivatives=dict(x=_unfold_rule),
    check=_check_unfold,
    method=False,
    numpy=(),
    samples=calls(
        lambda rng: Sample((draw(rng, (2, 2, 3, 4)),), {"kernel_size": 2}),
        lambda rng: Sample((draw(rng, (1, 4, 5)),), {"kernel_size": (2, 3), "padding": (1, 0), "stride": (2, 1)}),
        lambda rng: Sample((draw(rng, (1, 1, 5, 4)),), {"kernel_size": 2, "dilation": (2, 1), "stride": (1, 2)}),
        lambda rng: Sample((draw(rng, (1, 2, 2, 3)),), {"kernel_size": 1}),
    ),
)
def unfold(xp, x, /, kernel_size, dilation=1, padding=0, stride=1):
    """The windows of images (N, C, H, W) as columns (N, C·kh·kw, L), row by row; N may be missing. Also called im2col.

    Args:
        kernel_size, dilation, padding, stride: an int, or a pair for rows and columns, as in PyTorch.

    >>> import retrograd as rg
    >>> rg.unfold(rg.arange(6).reshape(1, 2, 3), kernel_size=2)
    tensor([[0, 1],
            [1, 2],
            [3, 4],
            [4, 5]])
    """
    w = windows(x.shape[-2:], kernel_size, stride, padding, dilation)
    x = padded(xp, x, w.padding)
    *lead, row, column = x.strides
    shape = (*x.shape[:-2], *w.kernel, *w.size)
    strides = (*lead, row * w.dilation[0], column * w.dilation[1], row * w.stride[0], column * w.stride[1])
    view = xp.lib.stride_tricks.as_strided(x, shape, strides)
    rows = x.shape[-3] * w.kernel[0] * w.kernel[1]
    return xp.ascontiguousarray(view).reshape(*x.shape[:-3], rows, w.size[0] * w.size[1])
