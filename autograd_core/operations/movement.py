"""Shapes: elements stay, their places change. What shares memory with its input also shares its version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...backends import backend_of, get_backend
from ..context import current_backend
from ..define import method, public, record
from ..dispatch import FUNCTIONS
from ..errors import one_frame
from ..samples import Sample, calls, draw, over, reals
from ..tensor import Tensor, TensorLike, asarray


@record(
    "movement",
    derivatives=dict(x=lambda ops, g, x_shape: ops.reshape(g, shape=x_shape)),
    into=lambda xp, out, x, shape: [(xp.copyto, (out.reshape(x.shape), x))],
    method=False,
    samples=over((2, 6), {"shape": (3, 4)}, {"shape": (-1,)}, {"shape": (2, 1, 6)}),
)
def reshape(xp, x, /, shape):
    """The same elements, in row-major order, in a new shape; one length may be -1. Shares memory where it can.

    >>> import retrograd as rg
    >>> rg.reshape(rg.arange(4), (2, 2))
    tensor([[0, 1],
            [2, 3]])
    """
    return x.reshape(shape)


def _inverse(axes: Any) -> tuple[int, ...] | None:
    if axes is None:
        return None
    order = [a % len(axes) for a in axes]
    return tuple(order.index(i) for i in range(len(order)))


@record(
    "movement",
    derivatives=dict(x=lambda ops, g, axes: ops.transpose(g, axes=_inverse(axes))),
    method=False,
    numpy=("transpose", "permute_dims"),
    samples=over((2, 3, 4), {}, {"axes": (1, 0, 2)}, {"axes": (2, 0, 1)}, {"axes": (-1, 0, 1)}),
)
def transpose(xp, x, /, axes=None):
    """Axes in a new order, reversed for None: axis i of the result is axis `axes[i]` of x. Shares memory.

    >>> import retrograd as rg
    >>> rg.transpose(rg.zeros((2, 3, 4)), (2, 0, 1)).shape
    (4, 2, 3)
    """
    return x.transpose(axes)


@record(
    "movement",
    derivatives=dict(x=lambda ops, g: g),
    broadcasts=True,
    method=False,
    samples=calls(
        lambda rng: Sample((draw(rng, (3, 1)),), {"shape": (2, 3, 4)}),
        lambda rng: Sample((draw(rng, ()),), {"shape": (2,)}),
    ),
)
def broadcast_to(xp, x, /, shape):
    """x repeated along new axes in front and along axes of length 1, without a copy.

    >>> import retrograd as rg
    >>> rg.broadcast_to(rg.tensor([1.0, 2.0]), (2, 2))
    tensor([[1., 2.],
            [1., 2.]])
    """
    return xp.broadcast_to(x, shape)


@record(
    "movement",
    derivatives=dict(x=lambda ops, g, x_shape: ops.reshape(g, shape=x_shape)),
    samples=over((2, 3), {"axis": 0}, {"axis": -1}, {"axis": (0, 2)}),
)
def expand_dims(xp, x, /, axis):
    """A new axis of length 1 at `axis` of the result (an int or a tuple).

    >>> import retrograd as rg
    >>> rg.expand_dims(rg.zeros(3), 0).shape
    (1, 3)
    """
    return xp.expand_dims(x, axis)


@record(
    "movement",
    derivatives=dict(x=lambda ops, g, x_shape: ops.reshape(g, shape=x_shape)),
    samples=over((2, 1, 3, 1), {}, {"axis": 1}, {"axis": (1, -1)}),
)
def squeeze(xp, x, /, axis=None):
    """Without the axes of length 1 named by `axis`, or without all of them.

    >>> import retrograd as rg
    >>> rg.squeeze(rg.zeros((1, 3, 1))).shape
    (3,)
    """
    return xp.squeeze(x, axis)


@record(
    "movement",
    derivatives=dict(x=lambda ops, g, axis: ops.flip(g, axis=axis)),
    samples=over((2, 3), {}, {"axis": 1}, {"axis": (0, 1)}),
)
def flip(xp, x, /, axis=None):
    """Elements in reversed order along `axis`, or along all axes.

    >>> import retrograd as rg
    >>> rg.flip(rg.tensor([1, 2, 3]))
    tensor([3, 2, 1])
    """
    return xp.flip(x, axis)


@record(
    "elementwise",
    derivatives=dict(x=lambda ops, g: g),  # the walk casts it back to the input's dtype
    into=lambda xp, out, x, dtype: [(xp.copyto, (out, x, "unsafe"))],
    samples=over((2, 3), {"dtype": np.float64}),
)
def astype(xp, x, /, dtype):
    """A copy with another dtype. The gradient is cast back; a cast to integers or booleans ends it.

    >>> import retrograd as rg
    >>> rg.astype(rg.tensor([1.7, -1.7]), "int64")
    tensor([ 1, -1])
    """
    out = x.astype(dtype)
    if out.dtype.kind in "OSUMm":
        raise TypeError(f"a tensor holds numbers, and {out.dtype} is no dtype of numbers")
    return out if out.dtype.isnative else x.astype(out.dtype.type)


@record("movement", derivatives=dict(x=lambda ops, g: g), method=False, public="ops", numpy=(), samples=reals())
def alias(xp, x, /):
    """The same array under a node of its own: a place in the graph at which a walk can stop."""
    return x


@record(
    "movement",
    derivatives=dict(x=lambda ops, g, backend, origin: ops.transfer(g, backend=origin, origin=backend)),
    method=False,
    public="ops",
    numpy=(),
    samples=calls(
        lambda rng: Sample((draw(rng, (2, 3)),), {"backend": "strict", "origin": current_backend().name}),
        lambda rng: Sample((draw(rng, (2, 3)),), {"backend": "numpy", "origin": current_backend().name}),
    ),
)
def transfer(xp, x, /, backend, origin):
    """A copy on another backend, differentiable: the gradient travels back to `origin`. Use `t.to(name)`."""
    return get_backend(backend).asarray(backend_of(x).to_numpy(x), copy=True)


def _windows(shape: tuple[int, ...], pad_width: tuple[tuple[int, int], ...]) -> tuple[slice, ...]:
    return tuple(slice(before, before + n) for n, (before, _) in zip(shape, pad_width, strict=True))


@record(
    "movement",
    derivatives=dict(
        x=lambda ops, g, x_shape, pad_width: ops.getitem(g, template=_windows(x_shape, pad_width))
    ),
    method=False,
    public="ops",
    numpy=(),
    samples=over((2, 3), {"pad_width": ((1, 2), (0, 1))}, {"pad_width": ((0, 0), (3, 0)), "value": 1.5}),
)
def pad_constant(xp, x, /, pad_width, value: float = 0):
    """`pad` with a constant; `pad_width` holds (before, after) for every axis."""
    return xp.pad(x, pad_width, mode="constant", constant_values=value)


@public
def pad(
    x: TensorLike,
    pad_width: int | Sequence[int] | Sequence[Sequence[int]],
    mode: str = "constant",
    constant_values: float = 0,
) -> Tensor:
    """Elements added at the ends of axes, as `numpy.pad`.

    Args:
        x: tensor of any shape.
        pad_width: (before, after) for every axis, one pair or one number for all.
        mode: "constant", or one of NumPy's that repeat elements: "edge", "reflect", "symmetric", "wrap".
        constant_values: what to fill with in the mode "constant".

    >>> import retrograd as rg
    >>> rg.pad(rg.tensor([1, 2]), 1)
    tensor([0, 1, 2, 0])
    >>> rg.pad(rg.tensor([1, 2, 3]), (2, 0), mode="reflect")
    tensor([3, 2, 1, 2, 3])
    """
    shape = np.shape(x)
    widths = tuple((int(a), int(b)) for a, b in np.broadcast_to(np.asarray(pad_width), (len(shape), 2)))
    if any(n < 0 for pair in widths for n in pair):
        raise ValueError(f"pad: widths must not be negative, got {pad_width}")
    if mode == "constant":
        return FUNCTIONS["pad_constant"](x, pad_width=widths, value=constant_values)
    if mode not in ("edge", "reflect", "symmetric", "wrap"):
        raise ValueError(f"pad: mode must be constant, edge, reflect, symmetric or wrap, got {mode!r}")
    from .indexing import take

    for axis, (n, width) in enumerate(zip(shape, widths, strict=True)):
        if width != (0, 0):
            x = take(x, np.pad(np.arange(n), width, mode=mode), axis=axis)
    return asarray(x)


# -- methods that take a shape or axes as several arguments, and PyTorch's names -----------------------------------


def _several(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """`f(2, 3)` and `f((2, 3))` mean the same."""
    return tuple(values[0]) if len(values) == 1 and isinstance(values[0], (tuple, list)) else values


def _reshape(self: Tensor, *shape: int | Sequence[int]) -> Tensor:
    """The same elements in a new shape: `t.reshape(2, 3)` or `t.reshape((2, 3))`; one length may be -1."""
    return FUNCTIONS["reshape"](self, shape=_several(shape))


def _transpose(self: Tensor, *axes: int | Sequence[int] | None) -> Tensor:
    """Axes in a new order, as NumPy: `t.transpose()` reverses, `t.transpose(1, 0, 2)` gives the order. (PyTorch's
    `transpose(i, j)` is `swapaxes(i, j)` here.)"""
    order = _several(axes)
    if order in ((), (None,)):
        return FUNCTIONS["transpose"](self)
    if len(order) != self.ndim:
        raise ValueError(
            f"transpose needs all {self.ndim} axes in their new order, got {order}. To exchange two: t.swapaxes{order}."
        )
    return FUNCTIONS["transpose"](self, axes=order)


def _broadcast_to(self: Tensor, *shape: int | Sequence[int]) -> Tensor:
    """Repeated, without a copy, to `shape`."""
    return FUNCTIONS["broadcast_to"](self, shape=_several(shape))


def _expand(self: Tensor, *shape: int | Sequence[int]) -> Tensor:
    """`broadcast_to` as PyTorch spells it: -1 keeps a length."""
    wanted = _several(shape)
    lead = len(wanted) - self.ndim
    return FUNCTIONS["broadcast_to"](
        self, shape=tuple(self.shape[i - lead] if n == -1 else n for i, n in enumerate(wanted))
    )


for _name, _function in (
    ("reshape", _reshape),
    ("view", _reshape),
    ("transpose", _transpose),
    ("permute", _transpose),
    ("broadcast_to", _broadcast_to),
    ("expand", _expand),
):
    setattr(Tensor, _name, one_frame(_function))


@public
@method
def swapaxes(x: TensorLike, axis1: int, axis2: int) -> Tensor:
    """Two axes exchanged.

    >>> import retrograd as rg
    >>> rg.swapaxes(rg.zeros((2, 3, 4)), 0, -1).shape
    (4, 3, 2)
    """
    ndim = np.ndim(x) if not isinstance(x, Tensor) else x.ndim
    for axis in (axis1, axis2):
        if not -ndim <= axis < ndim:
            raise np.exceptions.AxisError(f"swapaxes: axis {axis} is out of bounds for a tensor of {ndim} axes")
    order = list(range(ndim))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return FUNCTIONS["transpose"](x, axes=tuple(order))


@public
@method
def moveaxis(x: Tensor | np.ndarray, source: int, destination: int) -> Tensor:
    """One axis at a new place, the others in their order.

    >>> import retrograd as rg
    >>> rg.moveaxis(rg.zeros((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    order = [a for a in range(x.ndim) if a != source % x.ndim]
    order.insert(destination % x.ndim, source % x.ndim)
    return FUNCTIONS["transpose"](x, axes=tuple(order))


@public
@method
def matrix_transpose(x: TensorLike) -> Tensor:
    """The last two axes exchanged.

    >>> import retrograd as rg
    >>> rg.matrix_transpose(rg.zeros((5, 2, 3))).shape
    (5, 3, 2)
    """
    return swapaxes(x, -1, -2)


@public
def permute_dims(x: TensorLike, axes: Sequence[int]) -> Tensor:
    """Axes in a new order, under the array API's name.

    >>> import retrograd as rg
    >>> rg.permute_dims(rg.zeros((2, 3)), (1, 0)).shape
    (3, 2)
    """
    return FUNCTIONS["transpose"](x, axes=tuple(axes))


@public
@method
def unsqueeze(x: TensorLike, axis: int) -> Tensor:
    """`expand_dims` under PyTorch's name.

    >>> import retrograd as rg
    >>> rg.unsqueeze(rg.zeros(3), 1).shape
    (3, 1)
    """
    return FUNCTIONS["expand_dims"](x, axis=axis)


@public
@method
def ravel(x: TensorLike) -> Tensor:
    """All elements on one axis.

    >>> import retrograd as rg
    >>> rg.ravel(rg.zeros((2, 3))).shape
    (6,)
    """
    return FUNCTIONS["reshape"](x, shape=(-1,))


@public
@method
def flatten(x: Tensor | np.ndarray, start: int = 0, end: int = -1) -> Tensor:
    """Axes `start` to `end`, both included, joined into one.

    >>> import retrograd as rg
    >>> rg.flatten(rg.zeros((2, 3, 4)), 1).shape
    (2, 12)
    """
    shape = x.shape
    if not shape:
        return FUNCTIONS["reshape"](x, shape=(1,))
    first, last = start % len(shape), end % len(shape)
    joined = 1
    for n in shape[first : last + 1]:
        joined *= n
    return FUNCTIONS["reshape"](x, shape=(*shape[:first], joined, *shape[last + 1 :]))
