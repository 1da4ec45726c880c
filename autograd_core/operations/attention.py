"""Scaled-dot-product attention: each query takes the mean of the values, weighted by how well it fits their keys.

    out = softmax(scale · query · keyᵀ + mask) · value

The scores of all heads together are large, (…, L, S), and of one head small. So the fast path goes through heads in
blocks whose scores stay in the cache. For the gradient the probabilities are needed again: they are kept where they
take no more memory than the inputs do, and otherwise computed again from query and key.

Vaswani et al., "Attention is all you need", 2017.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..define import fused
from ..half import rounded, wide, widened
from ..samples import Sample, calls, draw
from .contraction import transposed

Block = tuple[slice, slice, slice, slice]  # batch, heads, queries, keys

_HOST_BLOCK = 1 << 17  # scores in a block: half a megabyte of float32, which the second-level cache holds
_DEVICE_BLOCK = 1 << 28


def _check(backend: Any, query: Any, key: Any, value: Any, mask: Any, is_causal: bool, scale: float | None) -> None:
    for name, array in (("query", query), ("key", key), ("value", value)):
        if array.ndim < 2:
            raise ValueError(f"{name} must have shape (…, length, width), got {tuple(array.shape)}")
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(f"query and key must be equally wide, got heads of {query.shape[-1]} and {key.shape[-1]}")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError(f"there must be one value per key, got {key.shape[-2]} keys and {value.shape[-2]} values")
    try:
        lead = np.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    except ValueError:
        raise ValueError(
            "query, key and value must have the same axes before the last two (batch, heads), got "
            f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}"
        ) from None
    if mask is None:
        return
    if mask.dtype.kind not in "bf":
        raise TypeError(f"mask must be boolean (True takes part) or floating (added to the scores), got {mask.dtype}")
    scores = (*lead, query.shape[-2], key.shape[-2])
    try:
        fits = np.broadcast_shapes(mask.shape, scores) == scores
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"mask of shape {tuple(mask.shape)} must broadcast to the scores {scores}")


def _scale(query: Any, scale: float | None) -> float:
    return 1 / math.sqrt(max(query.shape[-1], 1)) if scale is None else scale


def _causal(ops: Any, query: Any, key: Any) -> Any:
    """(L, S): query i may see keys 0…i."""
    rows = ops.reshape(ops.arange_like(query, query.shape[-2]), shape=(query.shape[-2], 1))
    return ops.greater_equal(rows, ops.arange_like(key, key.shape[-2]))


def _probabilities(ops: Any, query: Any, key: Any, mask: Any, causal: Any, scale: float) -> Any:
    """softmax over the keys that a query may see; zeros where it may see none."""
    scores = ops.matmul(ops.multiply(query, scale), transposed(ops, key))
    if mask is not None and mask.dtype.kind == "b":
        scores = ops.where(mask, scores, -math.inf)
    elif mask is not None:
        scores = ops.add(scores, ops.astype(mask, dtype=scores.dtype))
    if causal is not None:
        scores = ops.where(causal, scores, -math.inf)
    if mask is None or not key.shape[-2]:
        return ops.softmax(scores) if key.shape[-2] else scores
    # In a row of -∞ alone softmax would subtract ∞ from ∞: such a row is computed from zeros and thrown away.
    some = ops.any(ops.greater(scores, -math.inf), axis=-1, keepdims=True)
    return ops.where(some, ops.softmax(ops.where(some, scores, 0.0)), 0.0)


def attention_weights(
    ops: Any, query: Any, key: Any, mask: Any = None, is_causal: bool = False, scale: float | None = None
) -> Any:
    """softmax(scale · query · keyᵀ + mask), (…, L, S), by itself: for a caller that changes it before it weighs values.

    The arguments are those of `scaled_dot_product_attention`.
    """
    _check(None, query, key, key, mask, is_causal, scale)
    causal = _causal(ops, query, key) if is_causal else None
    query_, key_ = widened(ops, query, key)
    return rounded(ops, _probabilities(ops, query_, key_, mask, causal, _scale(query, scale)), query)


# -- the fast path: arrays (batch, heads, length, width), in blocks ----------------------------------------------------


def _lead(*arrays: Any) -> tuple[int, ...]:
    return np.broadcast_shapes(*[a.shape[:-2] for a in arrays])


def _as_heads(xp: Any, x: Any, lead: tuple[int, ...]) -> Any:
    """(…, length, width) as (batch, heads, length, width), float16 as float32; a view where that is possible."""
    x = wide(x)
    x = x if x.shape[:-2] == lead else xp.broadcast_to(x, (*lead, *x.shape[-2:]))
    return x.reshape(math.prod(lead[:-1]), lead[-1] if lead else 1, *x.shape[-2:])


def _bias(xp: Any, mask: Any, is_causal: bool, lead: tuple[int, ...], query: Any, key: Any) -> list[Any]:
    """What is added to the scores: of the mask and of causality, arrays (1 or batch, 1 or heads, 1 or L, 1 or S)."""
    found = []
    if mask is not None:
        if len(lead) > 2:
            mask = xp.broadcast_to(mask, (*lead, *mask.shape[-2:]) if mask.ndim > 1 else (*lead, 1, *mask.shape))
            mask = mask.reshape(-1, lead[-1], *mask.shape[-2:])
        mask = mask.reshape(*[1] * (4 - mask.ndim), *mask.shape)
        found.append(_minus_infinity(xp, mask, query.dtype) if mask.dtype.kind == "b" else mask.astype(query.dtype))
    if is_causal:
        seen = xp.arange(query.shape[-2])[:, None] >= xp.arange(key.shape[-2])
        found.append(_minus_infinity(xp, seen[None, None], query.dtype))
    return found


def _minus_infinity(xp: Any, allowed: Any, dtype: Any) -> Any:
    """0 where allowed, -∞ elsewhere."""
    return xp.where(allowed, 0.0, -math.inf).astype(dtype)


def _blocks(scores: tuple[int, int, int, int], is_causal: bool, on_host: bool) -> Iterator[Block]:
    """Ranges of batch, heads, queries and keys whose scores fit a block, without keys that none of its queries sees."""
    batch, heads, queries, keys = scores
    limit = _HOST_BLOCK if on_host else _DEVICE_BLOCK
    rows = max(min(limit // max(keys, 1), queries), 1)
    many = max(min(limit // max(rows * keys, 1), heads), 1) if rows == queries else 1
    most = max(limit // max(many * rows * keys, 1), 1) if many == heads and rows == queries else 1
    for b in range(0, batch if keys else 0, most):
        for h in range(0, heads, many):
            for r in range(0, queries, rows):
                seen = slice(0, min(r + rows, keys) if is_causal else keys)
                yield slice(b, b + most), slice(h, h + many), slice(r, r + rows), seen


def _slice(array: Any, block: Block) -> Any:
    """The part of an array, some of whose axes have length 1, that belongs to a block."""
    return array[tuple(slice(None) if n == 1 else s for n, s in zip(array.shape, block, strict=True))]


def _block_probabilities(xp: Any, query: Any, key: Any, bias: list[Any], scale: float, block: Block, out: Any) -> Any:
    """What `_probabilities` gives, for a block and in place."""
    b, h, r, seen = block
    p = xp.matmul(query[b, h, r] * scale, key[b, h, seen].swapaxes(2, 3), out=out)
    for added in bias:
        p += _slice(added, block)
    # Where all is -∞ the largest finite number is subtracted instead, and the sum of zeros counts as 1: zeros remain.
    p -= xp.maximum(xp.max(p, axis=3, keepdims=True), float(np.finfo(p.dtype).min))
    xp.exp(p, out=p)
    p /= xp.maximum(xp.sum(p, axis=3, keepdims=True), 1.0)
    return p


def _attention_fast(ops, query, key, value, mask=None, is_causal=False, scale=None):
    xp, dtype, lead = ops.xp, query.dtype, _lead(query, key, value)
    q, k, v = (_as_heads(xp, x, lead) for x in (query, key, value))
    bias, scale = _bias(xp, mask, is_causal, lead, q, k), _scale(query, scale)
    # Heads lie in the result as in the query: where they were split off the last axis, joining them costs no copy.
    out = xp.zeros_like(q, shape=(*q.shape[:3], v.shape[3]))
    scores = (*q.shape[:3], k.shape[2])
    kept = xp.zeros(scores, q.dtype) if math.prod(scores) <= q.size + k.size + v.size + out.size else None
    for block in _blocks(scores, is_causal, isinstance(q, np.ndarray)):
        b, h, r, seen = block
        p = _block_probabilities(xp, q, k, bias, scale, block, None if kept is None else kept[block])
        xp.matmul(p, v[b, h, seen], out=out[b, h, r])
    return out.reshape(*lead, *out.shape[2:]).astype(dtype, copy=False), kept


def _attention_rule(ops, needs, g, out, query, key, value, mask, probabilities, is_causal, scale):
    xp, lead = ops.xp, _lead(query, key, value)
    q, k, v, g, out = (_as_heads(xp, x, lead) for x in (query, key, value, g, out))
    bias, scale = _bias(xp, mask, is_causal, lead, q, k), _scale(query, scale)
    dq, dk, dv = (xp.zeros_like(x) if need else None for x, need in zip((q, k, v), needs, strict=False))
    dm = xp.zeros_like(bias[0]) if needs[3] else None
    along = xp.sum(g * out, axis=3, keepdims=True)
    for block in _blocks((*q.shape[:3], k.shape[2]), is_causal, isinstance(q, np.ndarray)):
        b, h, r, seen = block
        p = None if probabilities is None else probabilities[block]
        if p is None:
            p = _block_probabilities(xp, q, k, bias, scale, block, None)
        if dv is not None:
            dv[b, h, seen] += xp.matmul(p.swapaxes(2, 3), g[b, h, r])
        if dq is None and dk is None and dm is None:
            continue
        ds = xp.matmul(g[b, h, r], v[b, h, seen].swapaxes(2, 3))
        ds -= along[b, h, r]
        ds *= p
        if dm is not None:
            target = _slice(dm, block)
            target += xp.sum(ds, axis=tuple(i for i, n in enumerate(dm.shape) if n == 1), keepdims=True)
        ds *= scale
        if dq is not None:
            xp.matmul(ds, k[b, h, seen], out=dq[b, h, r])
        if dk is not None:
            dk[b, h, seen] += xp.matmul(ds.swapaxes(2, 3), q[b, h, r])
    whole = [d if d is None else d.reshape(*lead, *d.shape[2:]) for d in (dq, dk, dv)]
    if dm is not None:
        dm = dm.reshape(*lead, *dm.shape[2:]) if len(lead) > 2 else dm.reshape(mask.shape)
    return [*whole, dm]


def _heads(rng: np.random.Generator, lead: tuple[int, ...], lengths: tuple[int, int], widths: tuple[int, int]) -> list:
    queries, keys = lengths
    shapes = ((queries, widths[0]), (keys, widths[0]), (keys, widths[1]))
    return [draw(rng, (*lead, *shape)) for shape in shapes]


_dead_row = np.array([[True, False, True], [False, False, False]])


@fused(
    derivative=_attention_rule,
    fast=_attention_fast,
    residuals=("probabilities",),
    promote=("query", "key", "value"),
    floating=True,
    check=_check,
    method=False,
    numpy=(),
    samples=calls(
        lambda rng: Sample(tuple(_heads(rng, (2,), (2, 3), (2, 3)))),
        lambda rng: Sample(tuple(_heads(rng, (1, 2), (3, 3), (2, 2))), {"is_causal": True, "scale": 0.7}),
        lambda rng: Sample((*_heads(rng, (2, 1), (2, 3), (2, 1)), _dead_row)),
        lambda rng: Sample((*_heads(rng, (2,), (2, 3), (2, 2)), draw(rng, (2, 1, 3))), {"is_causal": True}),
        lambda rng: Sample((draw(rng, (2, 1, 2, 2)), draw(rng, (3, 2)), draw(rng, (1, 3, 1)))),
        lambda rng: Sample(tuple(_heads(rng, (0, 2), (2, 2), (1, 1)))),
    ),
)
def scaled_dot_product_attention(ops, query, key, value, mask=None, /, is_causal=False, scale=None):
    """softmax(scale · query · keyᵀ + mask) · value, over the last two axes.

    Args:
        query: (…, L, E). float16 is computed in float32.
        key: (…, S, E).
        value: (…, S, V). The axes before the last two are batch and heads; they are broadcast.
        mask: broadcastable to (…, L, S). Boolean: True takes part. Floating: added to the scores, and differentiable.
        is_causal: query i sees keys 0…i only, whatever L and S are; a mask narrows that further.
        scale: factor of the scores, by default 1 / √E.

    Returns:
        (…, L, V). A query that may see no key gives zeros, and no gradient.

    Raises:
        ValueError: widths, lengths, leading axes or mask that do not fit; TypeError: a mask of integers.

    >>> import retrograd as rg
    >>> x = rg.tensor([[1.0], [3.0]])
    >>> rg.scaled_dot_product_attention(rg.zeros((2, 1)), x, x, is_causal=True)
    tensor([[1.],
            [2.]])
    """
    if query.dtype == np.float16:
        single = widened(ops, query, key, value)
        return rounded(ops, ops.scaled_dot_product_attention(*single, mask, is_causal=is_causal, scale=scale), query)
    causal = _causal(ops, query, key) if is_causal else None
    return ops.matmul(_probabilities(ops, query, key, mask, causal, _scale(query, scale)), value)
