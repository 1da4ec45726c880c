"""Normalization: numbers are shifted and scaled to mean 0 and variance 1, over a row or over a batch.

    out = (x - mean) / √(var + eps) · weight + bias

All are one function of rows. `layer_norm` and `rms_norm` take the last axes of an array as a row, with a weight for
each column; `batch_norm` (`batch_normalization.py`) takes a channel, of all images and places, as a row, with a weight
for each row. With n = (x - mean) / √(var + eps) and h = g · weight the derivative is

    dx = (h - mean(h) - n · mean(h · n)) / √(var + eps)

where mean(h) is missing if no mean was subtracted. A node keeps the mean and the variance of each row.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..blocks import BLOCK
from ..define import fused, public
from ..half import rounded, wide, widened
from ..record import tensor_ops
from ..samples import Sample, calls, draw
from ..tensor import Tensor, TensorLike, asarray

# einsum makes no intermediate array and is twice as fast as `sum`, but it adds number after number: in long rows the
# rounding would show.
_LONG = 4096

# -- rows --------------------------------------------------------------------------------------------------------------


def _blocks(rows: Any) -> list[slice]:
    """Ranges of rows that fit the cache together; on a device all at once."""
    n, length = rows.shape
    step = max(BLOCK // max(length, 1), 1) if isinstance(rows, np.ndarray) else max(n, 1)
    return [slice(i, i + step) for i in range(0, n, step)]


def _part(scale: Any, block: slice) -> Any:
    """The rows of a weight (rows, 1) that belong to a block; a weight (1, columns) belongs to all."""
    return scale if scale.shape[0] == 1 else scale[block]


def normalize_rows(xp: Any, rows: Any, weight: Any, bias: Any, eps: float, centred: bool) -> tuple[Any, Any, Any]:
    """Rows (R, D) normalized, and the mean, or None, and the variance of each, (R, 1)."""
    out = xp.empty(rows.shape, rows.dtype)
    mean, var = xp.zeros((2, rows.shape[0], 1), rows.dtype)
    for block in _blocks(rows):
        part, to = rows[block], out[block]
        if centred:
            mean[block] = _means(xp, part)
            part = xp.subtract(part, mean[block], out=to)
        var[block] = _means(xp, part, part)
        xp.multiply(part, 1 / xp.sqrt(var[block] + eps), out=to)
        if weight is not None:
            to *= _part(weight, block)
        if bias is not None:
            to += _part(bias, block)
    return out, mean if centred else None, var


def row_gradients(
    xp: Any,
    g: Any,
    rows: Any,
    weight: Any,
    mean: Any,
    var: Any,
    eps: float,
    needs: tuple[bool, ...],
    by_row: bool = False,
) -> list[Any]:
    """Gradients of rows, weight and bias (those that are needed) for the cotangent g of the normalized rows.

    A weight (and bias) belongs to the columns, (1, D), or `by_row` to the rows, (R, 1).
    """
    shape = (rows.shape[0], 1) if by_row else (1, rows.shape[1])
    dx = xp.empty(rows.shape, rows.dtype) if needs[0] else None
    dw = xp.zeros(shape, rows.dtype) if needs[1] else None
    db = xp.zeros(shape, rows.dtype) if needs[2] else None
    for block in _blocks(rows):
        h, scale = g[block], 1 / xp.sqrt(var[block] + eps)
        n = (rows[block] if mean is None else rows[block] - mean[block]) * scale
        if dw is not None and by_row:
            dw[block] = _means(xp, h, n) * rows.shape[1]
        elif dw is not None:
            dw += xp.einsum("ij,ij->j", h, n)
        if db is not None and by_row:
            db[block] = _means(xp, h) * rows.shape[1]
        elif db is not None:
            db += xp.sum(h, axis=0)
        if dx is not None:
            to = dx[block]
            h = h if weight is None else xp.multiply(h, _part(weight, block), out=to)
            n *= _means(xp, h, n)
            if mean is not None:
                n += _means(xp, h)
            xp.subtract(h, n, out=to)
            to *= scale
    return [dx, dw, db]


def _means(xp: Any, rows: Any, factors: Any = None) -> Any:
    """The mean of each row, or of each row's products with `factors`, (R, 1)."""
    length = rows.shape[1]
    if length > _LONG:
        total = xp.sum(rows if factors is None else rows * factors, axis=1)
    else:
        total = xp.einsum("ij->i", rows) if factors is None else xp.einsum("ij,ij->i", rows, factors)
    return total[:, None] / max(length, 1)


def _row(vector: Any) -> Any:
    return vector if vector is None else wide(vector).reshape(1, -1)


# -- the last axes as a row --------------------------------------------------------------------------------------------


def _last(normalized_shape: Any) -> tuple[int, ...]:
    return (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)


def _as_rows(x: Any, normalized_shape: Any) -> Any:
    length = math.prod(_last(normalized_shape))
    return wide(x).reshape(math.prod(x.shape[: x.ndim - len(_last(normalized_shape))]), length)


def _check_last(backend: Any, x: Any, *affine: Any, normalized_shape: Any, eps: float | None) -> None:
    shape = _last(normalized_shape)
    if not shape or x.ndim < len(shape) or tuple(x.shape[x.ndim - len(shape) :]) != shape:
        raise ValueError(f"x must end with the axes normalized_shape={shape}, got shape {tuple(x.shape)}")
    for name, vector in zip(("weight", "bias"), affine, strict=False):
        if vector is not None and tuple(vector.shape) != shape:
            raise ValueError(f"{name} must have shape normalized_shape={shape}, got {tuple(vector.shape)}")


def _layer_norm_fast(ops, x, weight=None, bias=None, normalized_shape=(), eps=1e-5):
    rows = _as_rows(x, normalized_shape)
    out, mean, var = normalize_rows(ops.xp, rows, _row(weight), _row(bias), eps, centred=True)
    return out.reshape(x.shape).astype(x.dtype, copy=False), mean, var


def _layer_norm_rule(ops, needs, g, x, weight, mean, var, normalized_shape, eps):
    rows = _as_rows(x, normalized_shape)
    if var is None:
        _, mean, var = _layer_norm_fast(ops, x, weight, None, normalized_shape, eps)
    found = row_gradients(ops.xp, _as_rows(g, normalized_shape), rows, _row(weight), mean, var, eps, needs)
    shape = _last(normalized_shape)
    return [d if d is None else d.reshape(s) for d, s in zip(found, (x.shape, shape, shape), strict=True)]


def _layer_norm(ops: Any, x: Any, normalized_shape: Any, eps: float, centred: bool) -> Any:
    """The written-out form of both: subtract the mean, divide by the root of the mean square."""
    axes = tuple(range(-len(_last(normalized_shape)), 0))
    if centred:
        x = ops.subtract(x, ops.mean(x, axis=axes, keepdims=True))
    square = ops.mean(ops.square(x), axis=axes, keepdims=True)
    return ops.divide(x, ops.sqrt(ops.add(square, eps)))


def affine(ops: Any, x: Any, weight: Any, bias: Any) -> Any:
    x = x if weight is None else ops.multiply(x, weight)
    return x if bias is None else ops.add(x, bias)


@fused(
    derivative=_layer_norm_rule,
    fast=_layer_norm_fast,
    residuals=("mean", "var"),
    floating=True,
    check=_check_last,
    method=False,
    numpy=(),
    samples=calls(
        lambda rng: Sample((draw(rng, (3, 4)), draw(rng, (4,)), draw(rng, (4,))), {"normalized_shape": 4}),
        lambda rng: Sample((draw(rng, (2, 2, 3)), draw(rng, (2, 3))), {"normalized_shape": (2, 3), "eps": 0.1}),
        lambda rng: Sample((draw(rng, (5,)), None, draw(rng, (5,))), {"normalized_shape": (5,)}),
        lambda rng: Sample((draw(rng, (0, 4)), draw(rng, (4,)), draw(rng, (4,))), {"normalized_shape": (4,)}),
    ),
)
def layer_norm(ops, x, weight=None, bias=None, /, *, normalized_shape, eps=1e-5):
    """x with mean 0 and variance 1 over its last axes, times weight, plus bias.

    Ba, Kiros and Hinton, "Layer normalization", 2016.

    Args:
        x: (…, *normalized_shape). float16 is computed in float32.
        weight, bias: normalized_shape, or None.
        normalized_shape: the lengths of the axes to normalize over, an int for the last one alone.
        eps: added to the variance.

    Raises:
        ValueError: x does not end with these axes, or weight or bias has another shape.

    >>> import retrograd as rg
    >>> rg.layer_norm(rg.tensor([[1.0, 3.0], [10.0, 30.0]]), normalized_shape=2, eps=0)
    tensor([[-1.,  1.],
            [-1.,  1.]])
    """
    single, weight, bias = widened(ops, x, weight, bias)
    out = affine(ops, _layer_norm(ops, single, normalized_shape, eps, centred=True), weight, bias)
    return rounded(ops, out, x)


def _rms_eps(x: Any, eps: float | None) -> float:
    return float(np.finfo(np.float32 if x.dtype == np.float16 else x.dtype).eps) if eps is None else eps


def _rms_norm_fast(ops, x, weight=None, normalized_shape=(), eps=None):
    rows = _as_rows(x, normalized_shape)
    out, _, var = normalize_rows(ops.xp, rows, _row(weight), None, _rms_eps(x, eps), centred=False)
    return out.reshape(x.shape).astype(x.dtype, copy=False), var


def _rms_norm_rule(ops, needs, g, x, weight, var, normalized_shape, eps):
    rows, g = _as_rows(x, normalized_shape), _as_rows(g, normalized_shape)
    if var is None:
        _, var = _rms_norm_fast(ops, x, weight, normalized_shape, eps)
    dx, dw, _ = row_gradients(ops.xp, g, rows, _row(weight), None, var, _rms_eps(x, eps), (*needs, False))
    return [dx if dx is None else dx.reshape(x.shape), dw if dw is None else dw.reshape(_last(normalized_shape))]


@fused(
    derivative=_rms_norm_rule,
    fast=_rms_norm_fast,
    residuals=("var",),
    floating=True,
    check=_check_last,
    method=False,
    numpy=(),
    samples=calls(
        lambda rng: Sample((draw(rng, (3, 4)), draw(rng, (4,))), {"normalized_shape": 4}),
        lambda rng: Sample((draw(rng, (2, 2, 3)),), {"normalized_shape": (2, 3), "eps": 0.1}),
        lambda rng: Sample((draw(rng, (0, 4)), draw(rng, (4,))), {"normalized_shape": (4,)}),
    ),
)
def rms_norm(ops, x, weight=None, /, *, normalized_shape, eps=None):
    """x divided by the root of the mean square of its last axes, times weight: `layer_norm` without means and bias.

    Zhang and Sennrich, "Root mean square layer normalization", 2019.

    Args:
        x: (…, *normalized_shape). float16 is computed in float32.
        weight: normalized_shape, or None.
        normalized_shape: the lengths of the axes to normalize over, an int for the last one alone.
        eps: added to the mean square; None is the distance from 1 to the next number of x's dtype, as in PyTorch.

    Raises:
        ValueError: x does not end with these axes, or weight has another shape.

    >>> import retrograd as rg
    >>> rg.rms_norm(rg.tensor([[1.0, 7.0]]), normalized_shape=2, eps=0)
    tensor([[0.2, 1.4]])
    """
    single, weight = widened(ops, x, weight)
    out = affine(ops, _layer_norm(ops, single, normalized_shape, _rms_eps(x, eps), centred=False), weight, None)
    return rounded(ops, out, x)


@public
def group_norm(
    x: TensorLike,
    num_groups: int,
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`layer_norm` of each image's channels in groups: mean 0 and variance 1 over a group's channels and places.

    Wu and He, "Group normalization", 2018.

    Args:
        x: (N, C, …).
        num_groups: how many groups the C channels are split into.
        weight, bias: (C,), or None.
        eps: added to the variance.

    Raises:
        ValueError: x has no channels, or num_groups does not divide them, or weight or bias has another shape.

    >>> import retrograd as rg
    >>> rg.group_norm(rg.tensor([[1.0, 3.0, 10.0, 30.0]]), num_groups=2, eps=0)
    tensor([[-1.,  1., -1.,  1.]])
    """
    x = x if isinstance(x, Tensor) else asarray(x)
    if x.ndim < 2 or num_groups < 1 or x.shape[1] % num_groups:
        raise ValueError(f"group_norm: num_groups={num_groups} must divide the channels of x (N, C, …), got {x.shape}")
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None and tuple(np.shape(vector)) != (x.shape[1],):
            raise ValueError(f"group_norm: {name} must have shape ({x.shape[1]},), got {tuple(np.shape(vector))}")
    length = math.prod(x.shape[1:]) // num_groups
    rows = tensor_ops.reshape(x, shape=(x.shape[0], num_groups, length))
    out = tensor_ops.reshape(tensor_ops.layer_norm(rows, normalized_shape=length, eps=eps), shape=x.shape)
    channels = (x.shape[1], *[1] * (x.ndim - 2))
    return affine(tensor_ops, out, *[v if v is None else tensor_ops.reshape(v, shape=channels) for v in (weight, bias)])
