"""Batch normalization: a channel, of all images and places of a batch, has mean 0 and variance 1.

In training it is `normalize_rows` with a channel as a row. After training, with statistics that are given, it is one
scale and one shift per channel.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..define import fused
from ..half import rounded, wide, widened
from ..samples import Sample, calls, draw
from .normalization import affine, normalize_rows, row_gradients


def _column(vector: Any) -> Any:
    return vector if vector is None else wide(vector).reshape(-1, 1)


def _channels_first(ndim: int) -> tuple[int, ...]:
    """The order of axes that puts channels first and the batch last: (N, C, H, W) → (C, H, W, N)."""
    return (*range(1, ndim), 0)


def _as_channels(xp: Any, x: Any) -> Any:
    """(N, C, …) as (C, all others); no copy where the batch lies last in memory, as after `conv2d`."""
    return xp.ascontiguousarray(wide(x).transpose(_channels_first(x.ndim))).reshape(x.shape[1], _count(x))


def _from_channels(rows: Any, x: Any) -> Any:
    """The opposite of `_as_channels`, with the dtype of x: a view."""
    turned = rows.reshape(*x.shape[1:], x.shape[0]).transpose(x.ndim - 1, *range(x.ndim - 1))
    return turned.astype(x.dtype, copy=False)


def _count(x: Any) -> int:
    """How many numbers a channel of x holds."""
    return math.prod(x.shape) // x.shape[1] if x.shape[1] else 0


def _per_channel(ops: Any, vector: Any, x: Any) -> Any:
    return vector if vector is None else ops.reshape(vector, shape=(x.shape[1], *[1] * (len(x.shape) - 2)))


def _check_channels(x: Any, **vectors: Any) -> None:
    if x.ndim < 2:
        raise ValueError(f"x must have shape (N, C, …), got {tuple(x.shape)}")
    for name, vector in vectors.items():
        if vector is not None and tuple(vector.shape) != (x.shape[1],):
            raise ValueError(
                f"{name} must have shape ({x.shape[1]},), one number per channel; got {tuple(vector.shape)}"
            )


def _check_batch_norm(backend: Any, x: Any, weight: Any, bias: Any, eps: float) -> None:
    _check_channels(x, weight=weight, bias=bias)
    if _count(x) == 1:
        raise ValueError(
            f"batch statistics need more than one value per channel, got shape {tuple(x.shape)}. Use a larger batch, "
            "or statistics of other data (batch_norm_inference; .eval() on a layer)"
        )


def _batch_norm_fast(ops, x, weight=None, bias=None, eps=1e-5):
    rows = _as_channels(ops.xp, x)
    out, mean, var = normalize_rows(ops.xp, rows, _column(weight), _column(bias), eps, centred=True)
    if not rows.shape[1]:
        var += 1
    with np.errstate(over="ignore"):  # the variance of float16 numbers may be infinite in float16
        statistics = [v[:, 0].astype(x.dtype) for v in (mean, var)]
    return (_from_channels(out, x), *statistics), mean, var


def _batch_norm_rule(ops, needs, g, x, weight, mean, var, eps):
    if var is None:
        _, mean, var = _batch_norm_fast(ops, x, weight, None, eps)
    g_out, g_mean, g_var = g
    rows = _as_channels(ops.xp, x)
    h = ops.xp.zeros_like(rows) if g_out is None else _as_channels(ops.xp, g_out)
    dx, dw, db = row_gradients(ops.xp, h, rows, _column(weight), mean, var, eps, needs, by_row=True)
    count = max(rows.shape[1], 1)
    if dx is not None and g_mean is not None:
        dx += _column(g_mean) / count
    if dx is not None and g_var is not None:
        dx += (rows - mean) * (_column(g_var) * (2 / count))
    return [
        dx if dx is None else _from_channels(dx, x),
        dw if dw is None else dw[:, 0],
        db if db is None else db[:, 0],
    ]


@fused(
    derivative=_batch_norm_rule,
    fast=_batch_norm_fast,
    residuals=("mean", "var"),
    multiple=True,
    floating=True,
    check=_check_batch_norm,
    method=False,
    numpy=(),
    samples=calls(
        lambda rng: Sample((draw(rng, (4, 3)), draw(rng, (3,)), draw(rng, (3,)))),
        lambda rng: Sample((draw(rng, (2, 2, 2, 3)), draw(rng, (2,)), draw(rng, (2,))), {"eps": 0.1}),
        lambda rng: Sample((draw(rng, (2, 2, 3)),)),
        lambda rng: Sample((draw(rng, (3, 1, 2)), draw(rng, (1,)), draw(rng, (1,)))),
        lambda rng: Sample((draw(rng, (0, 2, 3)), draw(rng, (2,)), draw(rng, (2,)))),
    ),
)
def batch_norm(ops, x, weight=None, bias=None, /, eps=1e-5):
    """x with mean 0 and variance 1 in each channel, over the batch and all places; and this mean and variance.

    Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate shift",
    2015. A layer keeps running averages of the statistics, for `batch_norm_inference`.

    Args:
        x: (N, C, …), more than one value per channel. float16 is computed in float32.
        weight, bias: (C,), or None.
        eps: added to the variance.

    Returns:
        The normalized x, and the batch's mean (C,) and variance (C,), which is divided by the count, not by one less.
        Those of an empty batch are 0 and 1.

    Raises:
        ValueError: one value per channel, too few axes, or weight or bias of another shape.

    >>> import retrograd as rg
    >>> out, mean, var = rg.batch_norm(rg.tensor([[1.0, 10.0], [3.0, 30.0]]), eps=0)
    >>> out
    tensor([[-1., -1.],
            [ 1.,  1.]])
    >>> mean
    tensor([ 2., 20.])
    """
    single, weight, bias = widened(ops, x, weight, bias)
    if _count(x):
        axes = (0, *range(2, len(x.shape)))
        mean = ops.mean(single, axis=axes)
        centred = ops.subtract(single, _per_channel(ops, mean, x))
        var = ops.mean(ops.square(centred), axis=axes)
    else:
        mean = ops.zeros((x.shape[1],), like=single)
        centred, var = single, ops.add(mean, 1.0)
    normal = ops.divide(centred, ops.sqrt(ops.add(_per_channel(ops, var, x), eps)))
    out = affine(ops, normal, _per_channel(ops, weight, x), _per_channel(ops, bias, x))
    with np.errstate(over="ignore"):
        return tuple(rounded(ops, o, x) for o in (out, mean, var))


def _check_inference(backend: Any, x: Any, mean: Any, var: Any, weight: Any, bias: Any, eps: float) -> None:
    _check_channels(x, mean=mean, var=var, weight=weight, bias=bias)


def _inference_fast(ops, x, mean, var, weight=None, bias=None, eps=1e-5):
    """One multiplication and one addition per number."""
    scale = 1 / ops.xp.sqrt(wide(var) + eps)
    if weight is not None:
        scale = scale * weight
    shift = -wide(mean) * scale
    if bias is not None:
        shift = shift + bias
    out = x * _per_channel(ops, scale, x)
    out += _per_channel(ops, shift, x)
    return out.astype(x.dtype, copy=False)


def _inference_rule(ops, needs, g, x, mean, var, weight, eps):
    root = ops.sqrt(ops.add(var, eps))
    scale = ops.divide(1.0, root) if weight is None else ops.divide(weight, root)
    axes = (0, *range(2, len(x.shape)))
    total = ops.sum(g, axis=axes)
    along = None
    if needs[2] or needs[3]:
        along = ops.sum(ops.multiply(g, ops.subtract(x, _per_channel(ops, mean, x))), axis=axes)
    return [
        ops.multiply(g, _per_channel(ops, scale, x)) if needs[0] else None,
        ops.negative(ops.multiply(total, scale)) if needs[1] else None,
        ops.multiply(ops.divide(ops.multiply(along, scale), ops.add(var, eps)), -0.5) if needs[2] else None,
        ops.divide(along, root) if needs[3] else None,
        total,
    ]


@fused(
    derivative=_inference_rule,
    exact=True,
    fast=_inference_fast,
    floating=True,
    check=_check_inference,
    method=False,
    numpy=(),
    samples=calls(
        lambda rng: Sample(
            (draw(rng, (4, 3)), draw(rng, (3,)), draw(rng, (3,), 0.2, 2.0), draw(rng, (3,)), draw(rng, (3,)))
        ),
        lambda rng: Sample((draw(rng, (2, 2, 1, 3)), draw(rng, (2,)), draw(rng, (2,), 0.2, 2.0)), {"eps": 0.1}),
        lambda rng: Sample((draw(rng, (0, 2)), draw(rng, (2,)), draw(rng, (2,), 0.2, 2.0))),
    ),
)
def batch_norm_inference(ops, x, mean, var, weight=None, bias=None, /, eps=1e-5):
    """(x - mean) / √(var + eps) · weight + bias, with one number of each per channel: `batch_norm` after training.

    Args:
        x: (N, C, …).
        mean, var: (C,), the statistics to normalize with.
        weight, bias: (C,), or None.
        eps: added to the variance.

    Raises:
        ValueError: too few axes, or a vector of another shape.

    >>> import retrograd as rg
    >>> rg.batch_norm_inference(rg.tensor([[1.0], [3.0]]), rg.tensor([2.0]), rg.tensor([4.0]), eps=0)
    tensor([[-0.5],
            [ 0.5]])
    """
    normal = ops.divide(ops.subtract(x, _per_channel(ops, mean, x)), ops.sqrt(ops.add(_per_channel(ops, var, x), eps)))
    return affine(ops, normal, _per_channel(ops, weight, x), _per_channel(ops, bias, x))
