"""Functional face of the walk: from a function make its gradient, its Jacobian, its Hessian.

`grad(f)` calls f on stand-ins for the chosen arguments, walks back from the result, and leaves every `.grad` alone. The
stand-ins are tied to the caller's own tensors, so that `grad(grad(f))` and a gradient inside a loss need no flag.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from functools import wraps
from typing import Any

import numpy as np

from ..backends import BACKEND_BY_TYPE
from .backward import gradients_of
from .context import current, switched
from .errors import describe, one_frame
from .promotion import is_float
from .record import tensor_ops
from .tensor import TENSOR_TYPES, Tensor, asarray

Tree = Any  # a tensor, an array, a float, or any nest of lists, tuples, dicts and named tuples of them


def tree_leaves(tree: Tree, path: str = "") -> list[tuple[str, Any]]:
    """(path, leaf) for every leaf of a nest, in order.

    >>> tree_leaves({"w": [1, 2], "b": 3})
    [("['w'][0]", 1), ("['w'][1]", 2), ("['b']", 3)]
    """
    if isinstance(tree, dict):
        return [leaf for k, v in tree.items() for leaf in tree_leaves(v, f"{path}[{k!r}]")]
    if isinstance(tree, (list, tuple)):
        return [leaf for i, v in enumerate(tree) for leaf in tree_leaves(v, f"{path}[{i}]")]
    return [(path, tree)]


def tree_rebuild(tree: Tree, leaves: Any) -> Tree:
    """The same nest with its leaves taken, in order, from an iterator."""
    if isinstance(tree, dict):
        pairs = {k: tree_rebuild(v, leaves) for k, v in tree.items()}
        if type(tree) is dict:
            return pairs
        made = copy(tree)  # its class may want more than pairs, as defaultdict does
        for key, value in pairs.items():
            made[key] = value
        return made
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*[tree_rebuild(v, leaves) for v in tree])
    if isinstance(tree, (list, tuple)):
        return type(tree)([tree_rebuild(v, leaves) for v in tree])
    return next(leaves)


def tree_map(function: Callable, tree: Tree) -> Tree:
    """`function` of every leaf, in the same nest."""
    return tree_rebuild(tree, iter([function(leaf) for _, leaf in tree_leaves(tree)]))


def value_and_grad(f: Callable, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable:
    """The function that gives (f(…), gradient): see `grad`. With `has_aux`, ((value, aux), gradient).

    >>> import retrograd as rg
    >>> value, slope = rg.value_and_grad(lambda x: x**2)(3.0)
    >>> value.item(), slope.item()
    (9.0, 6.0)
    """

    if not callable(f):
        raise TypeError(f"grad and value_and_grad take a function, got {type(f).__name__}")

    @one_frame
    @wraps(f)
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        outer, stand_ins, standing = _stand_ins(args, argnums)
        with _differentiating():
            result = f(*standing, **kwargs)
        value, aux = result if has_aux else (result, None)
        if type(value) not in TENSOR_TYPES or value.size != 1 or not is_float(value.dtype):
            came = describe(value) if type(value) in TENSOR_TYPES else type(value).__name__
            raise TypeError(
                f"grad needs a function that gives one real number as a Tensor, got {came}. "
                "For more outputs: rg.jacobian; a result that was computed as plain numbers has no gradient."
            )
        gradients = _cotangents(value, None, stand_ins, outer)
        picked = _same_kind(args, argnums, gradients)
        if not outer:
            value, aux = _detached(value), _detached(aux)
        return ((value, aux) if has_aux else value), picked

    return differentiated


def grad(f: Callable, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable:
    """The gradient of a function that gives one number.

    Args:
        f: a function of tensors, arrays, numbers or any nest of them.
        argnums: position(s) of the arguments to differentiate by; an int gives one gradient, a tuple a tuple.
        has_aux: f gives (value, anything); the gradient function then gives (gradient, anything).

    A gradient has the kind of its argument: an ndarray for an ndarray, a Tensor for a Tensor, a 0-d Tensor for a float,
    the same nest for a nest. Arguments that are not reached get zeros.

    >>> import numpy as np, retrograd as rg
    >>> rg.grad(lambda w: (w * w).sum())(np.array([1.0, 2.0]))
    array([2., 4.])
    >>> rg.grad(rg.grad(lambda x: x**3))(2.0).item()
    12.0
    """
    both = value_and_grad(f, argnums, has_aux)

    @one_frame
    @wraps(f)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, g = both(*args, **kwargs)
        return (g, value[1]) if has_aux else g

    return gradient


@one_frame
def vjp(f: Callable, *args: Any) -> tuple[Any, Callable]:
    """(f(*args), pullback): `pullback(cotangent)` gives the gradients of all arguments, a tuple.

    >>> import retrograd as rg
    >>> y, pullback = rg.vjp(lambda x: x * 2, rg.tensor([1.0, 2.0]))
    >>> pullback(rg.tensor([1.0, 10.0]))
    (tensor([ 2., 20.]),)
    """
    positions = tuple(range(len(args)))
    outer, stand_ins, standing = _stand_ins(args, positions)
    with _differentiating():
        value = f(*standing)

    @one_frame
    def pullback(cotangent: Any) -> tuple[Any, ...]:
        return _same_kind(args, positions, _cotangents(value, cotangent, stand_ins, outer))

    return value if outer else _detached(value), pullback


def jacobian(f: Callable, argnum: int = 0) -> Callable:
    """The function that gives d f / d argument, of shape f(x).shape + x.shape, one backward walk per output element.

    >>> import retrograd as rg
    >>> rg.jacobian(lambda x: x * x)(rg.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """

    @one_frame
    @wraps(f)
    def rows(*args: Any, **kwargs: Any) -> Any:
        outer, stand_ins, standing = _stand_ins(args, argnum)
        if len(stand_ins) != 1:
            raise TypeError("jacobian differentiates by one tensor; for nests take vjp")
        with _differentiating():
            value = f(*standing, **kwargs)
        found = []
        for position in range(value.size):
            unit = np.zeros(value.size, value.dtype)
            unit[position] = 1
            found.append(_cotangents(value, unit.reshape(value.shape), stand_ins, outer)[0])
        shape = (*value.shape, *stand_ins[0].shape)
        if found:
            stacked = tensor_ops.reshape(tensor_ops.stack(*found), shape=shape)
        else:
            stacked = tensor_ops.zeros(shape, like=value)
        return _kind_of(args[argnum], stacked)

    return rows


def hessian(f: Callable, argnum: int = 0) -> Callable:
    """The matrix of second derivatives of a function that gives one number, of shape x.shape + x.shape.

    >>> import retrograd as rg
    >>> rg.hessian(lambda x: (x**3).sum())(rg.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    return jacobian(grad(f, argnum), argnum)


@one_frame
def hvp(f: Callable, x: Any, v: Any) -> Any:
    """Hessian of f at x times v, without the Hessian: the gradient of ⟨grad f, v⟩.

    >>> import retrograd as rg
    >>> rg.hvp(lambda x: (x**3).sum(), rg.tensor([1.0, 2.0]), rg.tensor([1.0, 1.0]))
    tensor([ 6., 12.])
    """
    first = grad(f)
    return grad(lambda y: tensor_ops.sum(tensor_ops.multiply(first(y), v)))(x)


_nesting: ContextVar[int] = ContextVar("nesting", default=0)  # how many functions are being differentiated here
nesting = _nesting.get


@contextmanager
def _differentiating() -> Iterator[None]:
    token = _nesting.set(_nesting.get() + 1)
    try:
        with switched(grad=True):
            yield
    finally:
        _nesting.reset(token)


# -- stand-ins -----------------------------------------------------------------------------------------------------


def _stand_ins(args: tuple[Any, ...], argnums: int | Sequence[int]) -> tuple[bool, list[Tensor], list[Any]]:
    """(whether an outer gradient listens, a stand-in per leaf of the chosen arguments, all arguments with these in)."""
    positions = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for p in positions:
        if not -len(args) <= p < len(args):
            raise ValueError(f"argnums names argument {p}, but {len(args)} positional arguments were given")
    positions = tuple(p % len(args) for p in positions)
    outer, stand_ins, standing = False, [], list(args)
    for p in positions:
        made = []
        for path, leaf in tree_leaves(args[p]):
            tensor = _differentiable(leaf, f"argument {p}{path}")
            if tensor.requires_grad and current().grad:
                outer = True
                tensor = tensor_ops.alias(tensor)
            else:
                tensor = tensor.detach()  # a recording knows the tensor itself, which outlives the stand-in
                tensor.requires_grad = True
            made.append(tensor)
        stand_ins += made
        standing[p] = tree_rebuild(args[p], iter(made))
    # Values that come from outside (a closure) may carry an outer graph too, so an inner gradient is always recorded
    # where somebody could differentiate it again.
    return outer, stand_ins, standing


def _differentiable(leaf: Any, where: str) -> Tensor:
    if type(leaf) in TENSOR_TYPES:
        tensor = leaf
    elif type(leaf) in BACKEND_BY_TYPE or isinstance(leaf, (float, complex, np.floating)):
        tensor = asarray(leaf)
    elif isinstance(leaf, (int, np.integer)):
        raise TypeError(f"{where} is an integer ({leaf!r}): there is no gradient by it. Write it as a float.")
    else:
        raise TypeError(f"{where} is a {type(leaf).__name__}: gradients are taken by tensors, arrays and floats")
    if not is_float(tensor.dtype):
        raise TypeError(
            f"{where} has dtype {tensor.dtype}: there is no gradient by it. Convert it with .astype('float32')."
        )
    return tensor


def _cotangents(value: Any, cotangent: Any, stand_ins: list[Tensor], outer: bool) -> list[Tensor]:
    """The gradients of the stand-ins; zeros where the value does not depend on one."""
    if not value.requires_grad:
        return [tensor_ops.zeros(s.shape, like=s) for s in stand_ins]
    create = current().grad and (outer or _carries_outer(value, stand_ins))
    found = gradients_of((value,), (cotangent,), stand_ins, retain_graph=True, create_graph=create)
    gradients = []
    for stand_in, (_, g) in zip(stand_ins, found, strict=True):
        if g is None:
            gradients.append(tensor_ops.zeros(stand_in.shape, like=stand_in))
        elif type(g) in TENSOR_TYPES:  # a constant may be one for several, a view of one number, or the cotangent given
            held = g.requires_grad or current().recorder is not None
            gradients.append(g if held else tensor_ops.positive(g))
        else:
            array, owned = g
            gradients.append(Tensor(array if owned else array.copy()))
    return gradients


def _carries_outer(value: Tensor, stand_ins: list[Tensor]) -> bool:
    """Whether the graph of `value` reaches leaves other than the stand-ins: somebody may differentiate it again."""
    own = {id(s.node or s) for s in stand_ins}
    seen: set[int] = set()
    stack: list[Any] = [value.node or value]
    while stack:
        edge = stack.pop()
        if id(edge) in seen or id(edge) in own:
            continue
        seen.add(id(edge))
        if type(edge) in TENSOR_TYPES:
            return True
        stack.extend([edge.parent] if hasattr(edge, "parent") else [e for e in edge.edges if e is not None])
    return False


def _same_kind(args: tuple[Any, ...], argnums: int | Sequence[int], gradients: list[Tensor]) -> Any:
    rest = iter(gradients)
    positions = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    shaped = []
    for p in positions:
        leaves = [_kind_of(leaf, next(rest)) for _, leaf in tree_leaves(args[p])]
        shaped.append(tree_rebuild(args[p], iter(leaves)))
    return shaped[0] if isinstance(argnums, int) else tuple(shaped)


def _kind_of(argument: Any, gradient: Tensor) -> Any:
    """A gradient as its argument's kind: a raw array for a raw array, of the host for one of the host; else a Tensor.

    Inside the function of another transform it stays a Tensor: as a raw array it would drop out of that one's graph.
    """
    if type(argument) not in BACKEND_BY_TYPE or (gradient.requires_grad and _nesting.get()):
        return gradient
    return gradient.backend.to_numpy(gradient.array) if isinstance(argument, np.ndarray) else gradient.array


def _detached(value: Any) -> Any:
    if type(value) in (list, tuple, dict):
        return tree_map(_detached, value)
    return value.detach() if type(value) in TENSOR_TYPES else value
