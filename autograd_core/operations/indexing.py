"""Elements by their places: slices, index arrays, masks; and the differentiable ways to change some of them.

An index is taken apart once: what is static (ints, slices, None, …) stays in a *template*, an attribute; index arrays
and masks become inputs of the record, so that a recording can feed others to the same program.
"""

from __future__ import annotations

from operator import index as integer
from typing import TYPE_CHECKING, Any

import numpy as np

from ...backends import Backend, backend_of
from ..define import method, public, record
from ..dispatch import FUNCTIONS
from ..errors import explained
from ..inplace import setitem  # noqa: F401  defines Tensor.__setitem__ and the in-place methods
from ..record import REGISTRY, Scatter, tensor_ops
from ..samples import Sample, Special, calls, draw
from ..tensor import Tensor, TensorLike, asarray

if TYPE_CHECKING:
    from numpy.typing import DTypeLike


class _Hole:
    """Where an index array stands in a template."""

    def __repr__(self) -> str:
        return "[]"


HOLE = _Hole()
_STATIC = (int, slice, type(None), type(Ellipsis))
_PLAIN = frozenset(_STATIC)
_BOUNDS = frozenset((int, type(None)))


def _is_plain(item: Any) -> bool:
    """Whether part of an index can be kept as it is."""
    if type(item) is slice:
        return type(item.start) in _BOUNDS and type(item.stop) in _BOUNDS and type(item.step) in _BOUNDS
    return type(item) in _PLAIN


def parse(index: Any) -> tuple[tuple[Any, ...], list[Any]]:
    """An index as (template, index arrays).

    >>> parse((slice(1, None), [0, 2]))
    ((slice(1, None, None), []), [array([0, 2])])
    """
    if not isinstance(index, tuple):
        if _is_plain(index):
            return (index,), []
        items: tuple[Any, ...] = (index,)
    else:
        items = index
        if all(map(_is_plain, items)):
            return items, []
    template, arrays = [], []
    for item in items:
        if isinstance(item, (bool, np.bool_)):
            item = np.asarray(item)
        elif isinstance(item, np.integer):
            item = int(item)
        if isinstance(item, slice):
            item = slice(*[None if v is None else integer(v) for v in (item.start, item.stop, item.step)])
        if isinstance(item, _STATIC):
            template.append(item)
            continue
        if isinstance(item, (list, tuple, range)):
            item = np.asarray(item, dtype=np.int64) if len(item) == 0 else np.asarray(item)
        dtype = getattr(item, "dtype", None)
        if dtype is None or dtype.kind not in "iub":
            raise IndexError(
                "an index is made of integers, slices, None, ... and integer or boolean arrays; "
                f"got {dtype or type(item).__name__}"
            )
        template.append(HOLE)
        arrays.append(item)
    return tuple(template), arrays


def join(template: tuple[Any, ...], indices: Any) -> Any:
    """The opposite of `parse`: an index that the array library understands."""
    if not indices:
        return template
    rest = iter(indices)
    return tuple(next(rest) if item is HOLE else item for item in template)


def _check_bounds(backend: Backend, x: Any, *rest: Any, template: tuple[Any, ...]) -> None:
    """Refuse integer index arrays that reach outside: NumPy does it itself, CuPy would wrap around silently."""
    if isinstance(x, np.ndarray) or HOLE not in template:
        return
    indices = iter(rest[len(rest) - template.count(HOLE) :])
    axis = 0
    consumed = sum(0 if i is None else 1 for i in template if i is not Ellipsis)
    for item in template:
        if item is None:
            continue
        if item is Ellipsis:
            axis += x.ndim - consumed
            continue
        if item is HOLE:
            array = next(indices)
            if array.dtype.kind == "b":
                axis += array.ndim
                continue
            if array.size:
                check_range(backend, array, -x.shape[axis], x.shape[axis], f"index for axis {axis}")
        axis += 1


def check_range(backend: Backend, values: Any, low: int, high: int, what: str) -> None:
    """Raise IndexError unless all integers lie in [low, high)."""
    if not values.size:
        return
    least, most = (int(backend.to_numpy(bound)) for bound in (values.min(), values.max()))
    if least < low or most >= high:
        wrong = least if least < low else most
        raise IndexError(f"{what} must lie in {low}…{high - 1}, got {wrong}")


@record(
    "indexing",
    derivatives=dict(x=lambda ops, g, x_shape, indices, template: Scatter(template, indices, g, x_shape)),
    promote=(),
    check=_check_bounds,
    method=False,
    public="ops",
    numpy=(),
    samples=calls(
        lambda rng: Sample((draw(rng, (3, 4)),), {"template": (1, slice(None, None, 2))}),
        lambda rng: Sample((draw(rng, (3, 4)),), {"template": (..., None, slice(None, None, -1))}),
        lambda rng: Sample((draw(rng, (3, 4)), np.array([0, 2, 0])), {"template": (HOLE,)}),
        lambda rng: Sample((draw(rng, (3, 4)), np.array([[0], [2]]), np.array([1, 1, 3])), {"template": (HOLE, HOLE)}),
        lambda rng: Sample((draw(rng, (3, 2)), np.array([True, False, True])), {"template": (HOLE,)}),
        lambda rng: Sample((draw(rng, (3, 4)), np.array(2)), {"template": (slice(None), HOLE)}),
        lambda rng: Sample((draw(rng, (3,)),), {"template": (0,)}),
    ),
)
def getitem(xp, x, /, *indices, template):
    """x[index]: `template` with the index arrays in its holes. Write `x[...]`."""
    if indices:
        return x[join(template, indices)]
    # The ellipsis makes one element a view as well, as it is on a device, where NumPy alone would give a scalar.
    return x[template if ... in template else (*template, ...)]


def _index_add_rule(ops, needs, g, indices, template):
    taken = ops.getitem(g, *indices, template=template) if needs[1] else None
    return [g, taken, *[None] * len(indices)]


_changes = calls(
    lambda rng: Sample((draw(rng, (3, 4)), draw(rng, (4,))), {"template": (1,)}),
    lambda rng: Sample((draw(rng, (3, 4)), draw(rng, (3, 1))), {"template": (slice(None), slice(1, 3))}),
    lambda rng: Sample((draw(rng, (4, 2)), draw(rng, (2, 2)), np.array([0, 3])), {"template": (HOLE,)}),
)


@record(
    "indexing",
    derivative=_index_add_rule,
    promote=("x", "value"),
    broadcasts=True,
    check=_check_bounds,
    method=False,
    public="ops",
    numpy=(),
    into=lambda xp, out, x, value, *indices, template: [
        (xp.copyto, (out, x)),
        (_add_at, (out, template, indices, value)),
    ],
    samples=calls(
        *[lambda rng, i=i: list(_changes())[i] for i in range(3)],
        lambda rng: Sample((draw(rng, (4, 2)), draw(rng, (3, 2)), np.array([1, 1, 3])), {"template": (HOLE,)}),
    ),
)
def index_add(xp, x, value, /, *indices, template):
    """A copy of x with `value` added at the index; places named twice get both. Write `x.at[...].add(value)`."""
    out = x.copy()
    _add_at(out, template, indices, value)
    return out


def _index_set_rule(ops, needs, g, indices, template):
    rest = ops.index_set(g, ops.zeros((), like=g), *indices, template=template) if needs[0] else None
    taken = ops.getitem(g, *indices, template=template) if needs[1] else None
    return [rest, taken, *[None] * len(indices)]


@record(
    "indexing",
    derivative=_index_set_rule,
    promote=("x", "value"),
    broadcasts=True,
    check=_check_bounds,
    method=False,
    public="ops",
    numpy=(),
    samples=_changes,
)
def index_set(xp, x, value, /, *indices, template):
    """A copy of x with `value` at the index; which of two values at one place wins is not said.

    Write `x.at[...].set(value)`.
    """
    out = x.copy()
    out[join(template, indices)] = value
    return out


def _add_at(target: Any, template: tuple[Any, ...], indices: Any, value: Any) -> None:
    if indices:
        backend_of(target).scatter_add(target, join(template, indices), value)
    else:
        target[template] += value


def scatter_into(buffer: Any, scatter: Scatter) -> Any:
    """Add a scattered gradient to a raw buffer, or to zeros: the walk's own accumulation."""
    if buffer is None:
        buffer = backend_of(scatter.value).xp.zeros(scatter.shape, scatter.value.dtype)
        if not scatter.indices:  # no place is named twice
            buffer[scatter.template] = scatter.value
            return buffer
    _add_at(buffer, scatter.template, scatter.indices, scatter.value)
    return buffer


def index_added(total: Tensor | None, scatter: Scatter) -> Tensor:
    """The same as an operation, for a lifted walk."""
    if total is None:  # one zero seen as many, so that a recording holds no array of zeros
        total = tensor_ops.broadcast_to(tensor_ops.zeros((), like=scatter.value), shape=scatter.shape)
    return tensor_ops.index_add(total, scatter.value, *scatter.indices, template=scatter.template)


def __getitem__(self: Tensor, index: Any) -> Tensor:
    """Elements by ints, slices, None, `...`, integer arrays or a boolean mask, as in NumPy; differentiable."""
    try:
        template, arrays = parse(index)
        if arrays:
            return FUNCTIONS["getitem"](self, *arrays, template=template)
        return FUNCTIONS["getitem"](self, template=template)
    except Exception as error:
        raise explained(REGISTRY["getitem"], (self,), {}, error) from None


Tensor.__getitem__ = __getitem__  # type: ignore[attr-defined]  `method` would wrap it once more for its errors


class At:
    """`x.at`: differentiable updates of some elements. `x.at[index].set(v)` gives a changed copy; x stays as it is."""

    __slots__ = ("_tensor",)

    def __init__(self, tensor: Tensor):
        self._tensor = tensor

    def __getitem__(self, index: Any) -> AtIndex:
        return AtIndex(self._tensor, index)


class AtIndex:
    """The places `x.at[index]`, waiting for what shall happen to them."""

    __slots__ = ("_arrays", "_template", "_tensor")

    def __init__(self, tensor: Tensor, index: Any):
        self._tensor = tensor
        self._template, self._arrays = parse(index)

    def get(self) -> Tensor:
        """The elements there."""
        return FUNCTIONS["getitem"](self._tensor, *self._arrays, template=self._template)

    def set(self, value: Any) -> Tensor:
        """A copy with `value` (broadcast) there."""
        return FUNCTIONS["index_set"](self._tensor, value, *self._arrays, template=self._template)

    def add(self, value: Any) -> Tensor:
        """A copy with `value` (broadcast) added there; a place named twice gets both."""
        return FUNCTIONS["index_add"](self._tensor, value, *self._arrays, template=self._template)

    def multiply(self, value: Any) -> Tensor:
        """A copy with the elements there multiplied by `value`."""
        return self.set(tensor_ops.multiply(self.get(), value))


def _at(self: Tensor) -> At:
    return At(self)


Tensor.at = property(_at, doc=At.__doc__)  # type: ignore[attr-defined]


@public
@method
def take(x: TensorLike, indices: TensorLike, axis: int | None = None) -> Tensor:
    """Elements at integer `indices` along `axis`, or of the flattened tensor.

    >>> import retrograd as rg
    >>> rg.take(rg.tensor([10, 20, 30]), [2, 0])
    tensor([30, 10])
    """
    source: Tensor = x if isinstance(x, Tensor) else tensor_ops.positive(x)
    if axis is None:
        return FUNCTIONS["reshape"](source, shape=(-1,))[indices]
    return source[(*[slice(None)] * (axis % source.ndim), indices)]


@public
@method
def take_along_axis(x: Tensor, indices: Tensor | np.ndarray, axis: int = -1) -> Tensor:
    """For every place of `indices` (int, as many axes as x) the element of x with that coordinate on `axis`.

    PyTorch's `gather`.

    >>> import retrograd as rg
    >>> rg.take_along_axis(rg.tensor([[1, 2], [3, 4]]), rg.tensor([[1], [0]]), axis=1)
    tensor([[2],
            [3]])
    """
    axis %= x.ndim
    xp = x.backend.xp
    grid = []
    for i in range(x.ndim):
        if i == axis:
            grid.append(indices)
            continue
        n = indices.shape[i]
        if x.shape[i] != n and x.shape[i] != 1:
            raise ValueError(
                f"take_along_axis: indices {indices.shape} must match x {x.shape} on every axis but {axis}"
            )
        grid.append(Tensor(xp.arange(n).reshape([-1 if j == i else 1 for j in range(x.ndim)]) * (x.shape[i] != 1)))
    return x[tuple(grid)]


@public
@method
def masked_fill(x: TensorLike, mask: TensorLike, value: TensorLike) -> Tensor:
    """x with `value` where the boolean `mask` is true (PyTorch).

    >>> import retrograd as rg
    >>> rg.masked_fill(rg.tensor([1.0, 2.0]), rg.tensor([True, False]), 0.0)
    tensor([0., 2.])
    """
    return FUNCTIONS["where"](mask, value, x)


@public
def one_hot(indices: TensorLike, num_classes: int, dtype: DTypeLike = np.float32) -> Tensor:
    """Rows that are 1 at the class and 0 elsewhere: shape indices.shape + (num_classes,).

    >>> import retrograd as rg
    >>> rg.one_hot(rg.tensor([0, 2]), 3)
    tensor([[1., 0., 0.],
            [0., 0., 1.]])
    """
    if not isinstance(indices, Tensor):
        indices = asarray(indices)
    if indices.dtype.kind not in "iu":
        raise TypeError(f"one_hot expects integer classes, got {indices.dtype}: x.astype('int64')")
    check_range(indices.backend, indices.array, 0, num_classes, "one_hot: a class")
    classes = Tensor(indices.backend.xp.arange(num_classes))
    return tensor_ops.astype(tensor_ops.equal(tensor_ops.expand_dims(indices, axis=-1), classes), dtype=np.dtype(dtype))


def _embedding_rule(ops, needs, g, weight_shape, indices, padding_idx):
    if padding_idx is not None:
        g = ops.where(ops.expand_dims(ops.equal(indices, padding_idx % weight_shape[0]), axis=-1), 0.0, g)
    return [Scatter((HOLE,), (indices,), g, weight_shape), None]


def _check_embedding(backend: Backend, weight: Any, indices: Any, padding_idx: int | None) -> None:
    if indices.dtype.kind not in "iu":
        raise TypeError(f"indices must be integers, got {indices.dtype}")
    check_range(backend, indices, 0, weight.shape[0], "an index into the table")


@record(
    "indexing",
    derivative=_embedding_rule,
    promote=(),
    check=_check_embedding,
    method=False,
    numpy=(),
    samples=calls(
        lambda rng: Sample((draw(rng, (5, 3)), np.array([[0, 4], [4, 1]]))),
        lambda rng: Sample((draw(rng, (5, 3)), np.array([2, 2, 0]))),
    ),
    special=(Special((np.ones((2, 1)), np.array([0, 1])), np.ones((2, 1)), (np.ones((2, 1)),)),),
)
def embedding(xp, weight, indices, /, padding_idx: int | None = None):
    """Rows of a table: weight (N, D) and integer indices of any shape give indices.shape + (D,).

    The row `padding_idx` gets no gradient. An index outside 0…N-1 is an IndexError.

    >>> import retrograd as rg
    >>> rg.embedding(rg.tensor([[1.0], [2.0]]), rg.tensor([1, 0, 1]))
    tensor([[2.],
            [1.],
            [2.]])
    """
    return xp.take(weight, indices, axis=0)


