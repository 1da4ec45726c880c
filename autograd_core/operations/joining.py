"""Several tensors joined into one, and one taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from ..define import method, public, record
from ..dispatch import FUNCTIONS
from ..samples import Sample, calls, draw
from ..tensor import Tensor, TensorLike


def _at(axis: int, ndim: int, item: Any) -> tuple[Any, ...]:
    """The index that is `item` on one axis and everything on the others."""
    axis %= ndim
    return (*[slice(None)] * axis, item)


def _concat_rule(ops, needs, g, arrays_shape, axis):
    lengths = [shape[axis] for shape in arrays_shape]
    ends = list(accumulate(lengths))
    return [
        ops.getitem(g, template=_at(axis, len(g.shape), slice(end - n, end))) if need else None
        for need, n, end in zip(needs, lengths, ends, strict=True)
    ]


@record(
    "movement",
    derivative=_concat_rule,
    into=lambda xp, out, *arrays, axis: [(xp.concatenate, (arrays, axis, out))],
    method=False,
    numpy=(),
    samples=calls(
        lambda rng: Sample((draw(rng, (2, 3)), draw(rng, (1, 3)), draw(rng, (0, 3)))),
        lambda rng: Sample((draw(rng, (2, 3)), draw(rng, (2, 1))), {"axis": -1}),
    ),
)
def concat_(xp, /, *arrays, axis=0):
    """Tensors one after the other along an axis that they have."""
    return xp.concatenate(arrays, axis=axis)


def _stack_rule(ops, needs, g, axis):
    return [
        ops.getitem(g, template=_at(axis, len(g.shape), i)) if need else None for i, need in enumerate(needs)
    ]


@record(
    "movement",
    derivative=_stack_rule,
    method=False,
    numpy=(),
    samples=calls(
        lambda rng: Sample((draw(rng, (2, 3)), draw(rng, (2, 3)))),
        lambda rng: Sample((draw(rng, (2,)), draw(rng, (2,)), draw(rng, (2,))), {"axis": -1}),
        lambda rng: Sample((draw(rng, ()), draw(rng, ()))),
    ),
)
def stack_(xp, /, *arrays, axis=0):
    """Tensors of one shape along a new axis."""
    return xp.stack(arrays, axis=axis)


def _split_rule(ops, needs, g, x_shape, indices_or_sections, axis):
    """The gradients of the parts, one after the other; a part that was not used gives zeros."""
    some = next(part for part in g if part is not None)
    lengths = _lengths(x_shape[axis], indices_or_sections)
    parts = []
    for n, part in zip(lengths, g, strict=True):
        shape = list(x_shape)
        shape[axis] = n
        parts.append(ops.zeros(tuple(shape), like=some) if part is None else part)
    return [ops.concat(*parts, axis=axis)]


def _lengths(n: int, indices_or_sections: Any) -> list[int]:
    if isinstance(indices_or_sections, int):
        if indices_or_sections < 1 or n % indices_or_sections:
            raise ValueError(
                f"an axis of length {n} cannot be split into {indices_or_sections} equal parts; "
                "name the cuts instead, e.g. [2, 5]"
            )
        return [n // indices_or_sections] * indices_or_sections
    ends = [min(c if c >= 0 else max(n + c, 0), n) for c in indices_or_sections]
    return [max(b - a, 0) for a, b in zip([0, *ends], [*ends, n], strict=True)]


@record(
    "movement",
    derivative=_split_rule,
    multiple=True,
    samples=calls(
        lambda rng: Sample((draw(rng, (4, 3)),), {"indices_or_sections": 2}),
        lambda rng: Sample((draw(rng, (2, 5)),), {"indices_or_sections": (1, 3), "axis": -1}),
    ),
)
def split(xp, x, /, indices_or_sections: int | Sequence[int], axis=0):
    """Parts of x along `axis`, as `numpy.split`: an int gives that many equal parts, a list the places to cut at.

    >>> import retrograd as rg
    >>> rg.split(rg.tensor([1, 2, 3, 4]), 2)
    (tensor([1, 2]), tensor([3, 4]))
    """
    parts, start = [], 0
    for n in _lengths(x.shape[axis], indices_or_sections):
        parts.append(x[_at(axis, x.ndim, slice(start, start + n))])
        start += n
    return parts


def _unstack_rule(ops, needs, g, x_shape, axis):
    shape = list(x_shape)
    del shape[axis % len(x_shape)]
    some = next(part for part in g if part is not None)
    return [ops.stack(*[ops.zeros(tuple(shape), like=some) if part is None else part for part in g], axis=axis)]


@record(
    "movement",
    derivative=_unstack_rule,
    multiple=True,
    samples=calls(
        lambda rng: Sample((draw(rng, (2, 3)),)),
        lambda rng: Sample((draw(rng, (2, 3)),), {"axis": -1}),
    ),
)
def unstack(xp, x, /, axis=0):
    """The slices of x along `axis`, each without that axis.

    >>> import retrograd as rg
    >>> rg.unstack(rg.tensor([[1, 2], [3, 4]]))
    (tensor([1, 2]), tensor([3, 4]))
    """
    return [x[_at(axis, x.ndim, i)] for i in range(x.shape[axis])]


@public
def concat(arrays: Sequence[TensorLike], axis: int | None = 0) -> Tensor:
    """Join tensors along an axis that they have (all shapes equal but for it); None flattens them first.

    >>> import retrograd as rg
    >>> rg.concat([rg.tensor([1, 2]), rg.tensor([3])])
    tensor([1, 2, 3])
    """
    if axis is None:
        arrays, axis = [FUNCTIONS["reshape"](a, shape=(-1,)) for a in arrays], 0
    if not len(arrays):
        raise ValueError("concat needs at least one tensor, got an empty list")
    return FUNCTIONS["concat"](*arrays, axis=axis)


concatenate = concat


@public
def stack(arrays: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Join tensors of one shape along a new axis.

    >>> import retrograd as rg
    >>> rg.stack([rg.tensor([1, 2]), rg.tensor([3, 4])], axis=1)
    tensor([[1, 3],
            [2, 4]])
    """
    if not len(arrays):
        raise ValueError("stack needs at least one tensor, got an empty list")
    return FUNCTIONS["stack"](*arrays, axis=axis)


@public
def vstack(arrays: Sequence[TensorLike]) -> Tensor:
    """One below the other: along the first axis, vectors as rows.

    >>> import retrograd as rg
    >>> rg.vstack([rg.zeros(3), rg.ones((2, 3))]).shape
    (3, 3)
    """
    return concat([FUNCTIONS["reshape"](a, shape=(1, -1)) if np.ndim(a) < 2 else a for a in arrays], axis=0)


@public
def hstack(arrays: Sequence[TensorLike]) -> Tensor:
    """Side by side: along the second axis, vectors along their only one.

    >>> import retrograd as rg
    >>> rg.hstack([rg.zeros((2, 1)), rg.ones((2, 3))]).shape
    (2, 4)
    """
    arrays = [FUNCTIONS["reshape"](a, shape=(1,)) if np.ndim(a) == 0 else a for a in arrays]
    return concat(arrays, axis=0 if np.ndim(arrays[0]) == 1 else 1)


@public
@method
def chunk(x: Tensor | np.ndarray, chunks: int, axis: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` parts of equal length along `axis`, the last one shorter where it does not divide (PyTorch).

    >>> import retrograd as rg
    >>> [part.shape for part in rg.chunk(rg.zeros(5), 2)]
    [(3,), (2,)]
    """
    n = x.shape[axis]
    size = -(-n // chunks)
    return FUNCTIONS["split"](x, indices_or_sections=tuple(range(size, n, size)), axis=axis)
