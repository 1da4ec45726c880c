"""Change of leaves in place. Values inside a graph are immutable; what may change is a leaf, under `no_grad`.

Every change counts the version of the memory up, so that a backward pass which still needs the old values says so
instead of giving a wrong gradient. `x.at[i].set(v)` is the differentiable way to a changed copy.
"""

from __future__ import annotations

from typing import Any

from .context import current
from .errors import describe, one_frame
from .record import tensor_ops
from .tensor import TENSOR_TYPES, Tensor


def overwrite(tensor: Tensor, value: Any) -> Tensor:
    """Copy `value`, of equal or broadcastable shape, into the leaf's memory."""
    cell = _cell(tensor)
    array = _value(tensor, value)
    recorder = current().recorder
    if recorder is not None:
        recorder.assign(tensor, value)
    tensor.array[...] = array
    cell[0] += 1
    return tensor


def replace(tensor: Tensor, value: Any) -> Tensor:
    """`tensor.data = value`: values of equal shape and dtype into the leaf's memory, whatever the grad mode."""
    if tensor.node is not None:
        raise RuntimeError(
            f"the data of the result of {tensor.node.name} cannot be replaced: only leaves can be changed"
        )
    if getattr(value, "shape", None) != tensor.shape or value.dtype != tensor.dtype:
        raise ValueError(f"data must keep shape and dtype, {describe(tensor)}; got {describe(value)}")
    for ref in _cell(tensor)[1:]:
        handle = ref()
        if handle is not None and handle is not value and handle.array is tensor.array:
            kept = handle.clone()
            handle.array, handle.cell = kept.array, kept.cell
    return overwrite(tensor, value)


def copy_(tensor: Tensor, value: Any) -> Tensor:
    """Overwrite the leaf with `value`; returns the leaf."""
    _check(tensor, "copy_")
    return overwrite(tensor, value)


def add_(tensor: Tensor, value: Any, alpha: float = 1) -> Tensor:
    """Add `alpha · value` to the leaf in place."""
    _check(tensor, "add_")
    return overwrite(tensor, tensor_ops.add(_plain(tensor), value if alpha == 1 else tensor_ops.multiply(value, alpha)))


def sub_(tensor: Tensor, value: Any) -> Tensor:
    """Subtract `value` from the leaf in place."""
    _check(tensor, "sub_")
    return overwrite(tensor, tensor_ops.subtract(_plain(tensor), value))


def mul_(tensor: Tensor, value: Any) -> Tensor:
    """Multiply the leaf by `value` in place."""
    _check(tensor, "mul_")
    return overwrite(tensor, tensor_ops.multiply(_plain(tensor), value))


def div_(tensor: Tensor, value: Any) -> Tensor:
    """Divide the leaf by `value` in place."""
    _check(tensor, "div_")
    return overwrite(tensor, tensor_ops.divide(_plain(tensor), value))


def fill_(tensor: Tensor, value: float) -> Tensor:
    """Set every element of the leaf to `value`."""
    _check(tensor, "fill_")
    return overwrite(tensor, value)


def zero_(tensor: Tensor) -> Tensor:
    """Set every element of the leaf to 0."""
    return fill_(tensor, 0)


def clamp_(tensor: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Bring every element of the leaf between `min` and `max`."""
    _check(tensor, "clamp_")
    return overwrite(tensor, _plain(tensor).clamp(min, max))  # type: ignore[attr-defined]


def lerp_(tensor: Tensor, end: Any, weight: Any) -> Tensor:
    """Move the leaf towards `end` by the share `weight`, as an average of weights does."""
    _check(tensor, "lerp_")
    return overwrite(tensor, _plain(tensor) + weight * (end - _plain(tensor)))  # type: ignore[operator]


def setitem(tensor: Tensor, index: Any, value: Any) -> None:
    """`tensor[index] = value` on a leaf that does not require a gradient."""
    if tensor.node is not None or (tensor.requires_grad and current().grad):
        raise RuntimeError(
            "values in a graph cannot be changed in place. Write y = x.at[index].set(value), which is differentiable, "
            "or change a leaf under rg.no_grad()."
        )
    from .operations.indexing import join, parse

    cell = _cell(tensor)
    template, indices = parse(index)
    recorder = current().recorder
    if recorder is not None:
        recorder.assign(tensor, value, template, indices)
    place = join(template, [i.array if type(i) in TENSOR_TYPES else tensor.backend.asarray(i) for i in indices])
    tensor.array[place] = _value(tensor, value, fits=False)
    cell[0] += 1


def _augmented(name: str, in_place: Any, operation: str) -> Any:
    """`x += v`: rebinds the name, except on a leaf that requires a gradient, where it is in place under `no_grad`."""

    def method(tensor: Tensor, value: Any) -> Tensor:
        if tensor.node is None and tensor.requires_grad:
            _check(tensor, name)
            return in_place(tensor, value)
        return getattr(tensor_ops, operation)(tensor, value)

    return method


def _check(tensor: Tensor, what: str) -> None:
    if tensor.node is not None:
        raise RuntimeError(f"{what} on the result of {tensor.node.name}: only leaves can be changed in place")
    if tensor.requires_grad and current().grad:
        raise RuntimeError(
            f"{what} on a leaf that requires a gradient would be lost to the graph. Do it under `with rg.no_grad():`."
        )


def _cell(tensor: Tensor) -> list[Any]:
    """The version cell of memory that may be changed. A detached result has none: its memory is a value in a graph."""
    if tensor.cell is None:
        raise RuntimeError(
            "this tensor shares its memory with a value in a graph, which cannot be changed in place. "
            "Change a copy: .clone()."
        )
    return tensor.cell


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach() if tensor.requires_grad else tensor


def _value(tensor: Tensor, value: Any, fits: bool = True) -> Any:
    """`value` as an array of the leaf's backend and dtype that can be written into its memory."""
    backend = tensor.backend
    if type(value) in TENSOR_TYPES:
        if type(value.array) is not type(tensor.array):
            raise TypeError(
                f"cannot write {describe(value)} into {describe(tensor)}. Move it first with .to({backend.name!r})."
            )
        array = value.array
    else:
        array = backend.asarray(value)
    if fits and tuple(array.shape) != tensor.shape:
        try:
            array = backend.xp.broadcast_to(array, tensor.shape)
        except ValueError:
            raise ValueError(f"cannot write {describe(value)} into {describe(tensor)}: the shapes differ") from None
    if array.dtype != tensor.dtype:
        if array.dtype.kind == "c" and tensor.dtype.kind != "c":
            raise TypeError(f"cannot write {describe(value)} into {describe(tensor)}: it would lose the imaginary part")
        array = array.astype(tensor.dtype)
    return array


for _method in (copy_, add_, sub_, mul_, div_, fill_, zero_, clamp_, lerp_):
    setattr(Tensor, _method.__name__, one_frame(_method))
Tensor.__setitem__ = one_frame(setitem)  # type: ignore[attr-defined]
for _dunder, _in_place, _operation in (
    ("__iadd__", add_, "add"),
    ("__isub__", sub_, "subtract"),
    ("__imul__", mul_, "multiply"),
    ("__itruediv__", div_, "divide"),
):
    setattr(Tensor, _dunder, one_frame(_augmented(_dunder.strip("_"), _in_place, _operation)))
